package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// connect returns both ends of a loopback connection.
func connect(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

func newServer(t testing.TB) *Server {
	t.Helper()
	s, err := NewServer(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// start serves handler and returns a client of it.
func start(t testing.TB, handler func(*Request)) *Conn {
	t.Helper()
	c, s := connect(t)
	served := make(chan struct{})
	server := newServer(t)
	go func() {
		defer close(served)
		server.Serve(context.Background(), s, handler)
	}()
	client, err := Client(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Error("the server did not end with its connection")
		}
	})
	return client
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func echo(r *Request) {
	s, err := r.Accept()
	if err != nil {
		return
	}
	_, _ = io.Copy(s, s)
	_ = s.CloseWrite()
}

// exchange sends want on s and returns what comes back.
func exchange(s *ClientStream, want []byte) ([]byte, error) {
	go func() {
		_, _ = s.ReadFrom(bytes.NewReader(want))
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	return got, errors.Join(err, s.Close())
}

func TestManyStreamsCarryEveryByte(t *testing.T) {
	c := start(t, echo)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			want := make([]byte, 3<<20+i) // more than the window of a stream
			_, _ = rand.Read(want)
			s, err := c.Connect(within(t), "10.0.0.1:80", http.Header{"Baggage": {"a=b"}})
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := exchange(s, want); err != nil || !bytes.Equal(got, want) {
				t.Errorf("stream %d: %d bytes of %d, error %v", i, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
}

// TestClientMayEndFirst: the client's half ends, and the server goes on sending.
func TestClientMayEndFirst(t *testing.T) {
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		got, err := io.ReadAll(s)
		_, _ = fmt.Fprint(s, string(got), err)
		_ = s.CloseWrite()
	})
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := exchange(s, []byte("question ")); string(b) != "question <nil>" || err != nil {
		t.Errorf("client read %q, %v", b, err)
	}
}

// TestServerEndsFirst: a server that ends its half ends the tunnel. What both sides sent before arrives.
func TestServerEndsFirst(t *testing.T) {
	got := make(chan string, 1)
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		_, _ = io.ReadFull(s, make([]byte, len("sent"))) // of one frame, so the rest has arrived as well
		_, _ = io.WriteString(s, "bye")
		_ = s.CloseWrite()
		b, err := io.ReadAll(s)
		got <- fmt.Sprint(string(b), err)
	})
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "sent before"); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "bye" || err != nil {
		t.Fatalf("client read %q, %v", b, err)
	}
	if b := <-got; b != " before<nil>" {
		t.Errorf("server read %s", b)
	}
	// The client may write until it learns that the tunnel has ended, and is then told.
	for end := time.After(10 * time.Second); ; {
		if _, err := io.WriteString(s, "lost"); err != nil {
			break
		}
		select {
		case <-end:
			t.Fatal("the client may write for ever")
		default:
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestResetStaysAReset(t *testing.T) {
	accepted, serverSaw := make(chan error, 2), make(chan error, 1)
	c := start(t, func(r *Request) {
		s, err := r.Accept()
		if accepted <- err; err != nil {
			return
		}
		if r.Authority == "resets:80" {
			_, _ = io.WriteString(s, "x")
			s.Abort()
			_, err := io.ReadAll(s)
			serverSaw <- err
			return
		}
		_, err = io.ReadAll(s)
		serverSaw <- err
	})
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	// The client learns of the answer before Accept returns: a reset in between would be an error of Accept.
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	s.Abort()
	var reset http2.StreamError
	if err := <-serverSaw; !errors.As(err, &reset) {
		t.Errorf("server saw %v", err)
	}
	if _, err := s.Write([]byte("x")); err == nil {
		t.Error("a write after a reset succeeds")
	}
	s, err = c.Connect(within(t), "resets:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); !errors.As(err, &reset) {
		t.Errorf("client saw %v", err)
	}
	if err := <-serverSaw; err == nil {
		t.Error("the server may read on after its own reset")
	}
	if !c.Reserve() {
		t.Error("a reset must not cost the connection")
	}
}

// TestBrokenSourceResets: the server must not take a client's broken connection for an end.
func TestBrokenSourceResets(t *testing.T) {
	serverSaw := make(chan error, 1)
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		_, err := io.ReadAll(s)
		serverSaw <- err
	})
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	if _, err := s.ReadFrom(io.MultiReader(strings.NewReader("half"), errorReader{broken})); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	var reset http2.StreamError
	if err := <-serverSaw; !errors.As(err, &reset) {
		t.Errorf("server saw %v", err)
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestRefusal(t *testing.T) {
	c := start(t, func(r *Request) { _ = r.Reject(401) })
	_, err := c.Connect(within(t), "10.0.0.1:80", nil)
	var status StatusError
	if !errors.As(err, &status) || status.Status != 401 {
		t.Fatalf("got %v", err)
	}
	if !c.Reserve() {
		t.Error("a refusal must not cost the connection")
	}
}

func TestSlowReaderStopsNoOtherStream(t *testing.T) {
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		if r.Authority == "fast:80" {
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
			return
		}
		<-t.Context().Done() // reads nothing
	})
	var slow []*ClientStream
	stuck := make(chan error, maxStreams/2)
	for range cap(stuck) {
		s, err := c.Connect(within(t), "slow:80", nil)
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, s)
		go func() {
			_, err := s.Write(make([]byte, 4*streamWindow))
			stuck <- err
		}()
	}
	for range 50 {
		s, err := c.Connect(within(t), "fast:80", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := exchange(s, make([]byte, 1<<20)); len(got) != 1<<20 || err != nil {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
	}
	select {
	case err := <-stuck:
		t.Fatalf("a slow stream took more than its window: %v", err)
	default:
	}
	for _, s := range slow {
		s.Abort()
		if err := <-stuck; err == nil {
			t.Error("a reset must end a blocked write")
		}
	}
}

func TestLostConnectionEndsEverything(t *testing.T) {
	cn, sn := connect(t)
	server := newServer(t)
	go server.Serve(context.Background(), sn, func(r *Request) {
		_, _ = r.Accept()
		sn.Close()
	})
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err == nil {
		_, err = io.ReadAll(s)
	}
	if err == nil {
		t.Error("a lost connection must not look like an end")
	}
	<-c.Done()
	if c.Reserve() {
		t.Error("usable after loss")
	}
	if _, err := c.Connect(within(t), "10.0.0.1:80", nil); err == nil {
		t.Error("connected after loss")
	}
}

// TestLostAfterTheServersEnd: a client that does not send must learn that its connection has been lost.
func TestLostAfterTheServersEnd(t *testing.T) {
	cn, sn := connect(t)
	server := newServer(t)
	go server.Serve(context.Background(), sn, func(r *Request) { _, _ = r.Accept() })
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); err != nil {
		t.Fatal(err)
	}
	silent, w := io.Pipe()
	defer w.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := s.ReadFrom(silent)
		ended <- err
	}()
	sn.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a lost connection must not look like an end")
		}
	case <-time.After(10 * time.Second):
		t.Error("the client never learns of the loss")
	}
}

func TestDrainLetsStreamsEnd(t *testing.T) {
	cn, sn := connect(t)
	server := newServer(t)
	go server.Serve(context.Background(), sn, echo)
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	server.Drain()
	if b, err := exchange(s, []byte("x")); string(b) != "x" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	<-c.Done()
	if c.Reserve() {
		t.Error("usable after drain")
	}
}

func TestCancelledConnect(t *testing.T) {
	reset := make(chan error, 1)
	c := start(t, func(r *Request) {
		_, err := io.ReadAll(r.stream)
		reset <- err
	})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if _, err := c.Connect(ctx, "10.0.0.1:80", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	var e http2.StreamError
	if err := <-reset; !errors.As(err, &e) {
		t.Errorf("server saw %v", err)
	}
}

// TestTunnelOutlivesItsConnect: the context of Connect bounds the wait for the answer and nothing else.
func TestTunnelOutlivesItsConnect(t *testing.T) {
	c := start(t, echo)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := c.Connect(ctx, "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if b, err := exchange(s, []byte("x")); string(b) != "x" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAbortAfterTheHandler: a policy may end a tunnel at the moment at which its handler returns.
func TestAbortAfterTheHandler(t *testing.T) {
	streams := make(chan *ServerStream, 1)
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		streams <- s
	})
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(s); err != nil {
		t.Error(err)
	}
	left := <-streams
	left.Abort()
	_ = left.CloseWrite()
}
