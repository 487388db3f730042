package hbone

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
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

// start serves handler and returns a client of it.
func start(t testing.TB, handler func(*Request)) *Conn {
	t.Helper()
	c, s := connect(t)
	served := make(chan error, 1)
	go func() { served <- Serve(s, handler, nil) }()
	client, err := Client(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		select {
		case <-served:
		case <-time.After(10 * time.Second):
			t.Error("server did not end with its connection")
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

func TestManyStreamsCarryEveryByte(t *testing.T) {
	c := start(t, echo)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			want := make([]byte, 3<<20+i) // more than any window
			_, _ = rand.Read(want)
			s, err := c.Connect(within(t), "10.0.0.1:80", Header{"baggage", "a=b"})
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				_, _ = s.Write(want)
				_ = s.CloseWrite()
			}()
			got, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("stream %d: %d bytes of %d, error %v", i, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
	if c.Idle(time.Now().Add(time.Second)) == 0 {
		t.Error("connection still counts streams after all have ended")
	}
}

func TestServerMayEndFirst(t *testing.T) {
	got := make(chan string, 1)
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		_, _ = io.WriteString(s, "bye")
		_ = s.CloseWrite()
		b, err := io.ReadAll(s)
		got <- fmt.Sprint(string(b), err)
	})
	s, err := c.Connect(within(t), "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "bye" || err != nil {
		t.Fatalf("client read %q, %v", b, err)
	}
	// The server's half has ended, and ours goes on.
	if _, err := io.WriteString(s, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b := <-got; b != "still here<nil>" {
		t.Errorf("server read %s", b)
	}
}

func TestResetStaysAReset(t *testing.T) {
	serverSaw := make(chan error, 1)
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		_, err := io.ReadAll(s)
		serverSaw <- err
		s2 := s
		s2.Reset(http2.ErrCodeCancel)
	})
	s, err := c.Connect(within(t), "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	s.Reset(http2.ErrCodeConnect)
	var reset ResetError
	if err := <-serverSaw; !errors.As(err, &reset) || !reset.Remote || reset.Code != http2.ErrCodeConnect {
		t.Errorf("server saw %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.As(err, &reset) {
		t.Errorf("write after reset: %v", err)
	}
}

func TestRefusal(t *testing.T) {
	c := start(t, func(r *Request) { _ = r.Reject(401) })
	_, err := c.Connect(within(t), "10.0.0.1:80")
	var status StatusError
	if !errors.As(err, &status) || status.Status != 401 {
		t.Fatalf("got %v", err)
	}
	if !c.Usable() {
		t.Error("a refusal must not cost the connection")
	}
}

func TestSlowReaderStopsNobodyElse(t *testing.T) {
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		if r.Authority == "fast:80" {
			_, _ = io.Copy(s, s)
			_ = s.CloseWrite()
			return
		}
		// Reads nothing until the client goes.
		<-s.conn.done
	})
	slow, err := c.Connect(within(t), "slow:80")
	if err != nil {
		t.Fatal(err)
	}
	stuck := make(chan error, 1)
	go func() {
		_, err := slow.Write(make([]byte, 4*streamWindow))
		stuck <- err
	}()
	for range 50 { // far more in all than the connection's window
		s, err := c.Connect(within(t), "fast:80")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = s.Write(make([]byte, 1<<20))
			_ = s.CloseWrite()
		}()
		if n, err := io.Copy(io.Discard, s); n != 1<<20 || err != nil {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	select {
	case err := <-stuck:
		t.Fatalf("the slow stream took more than its window: %v", err)
	default:
	}
	slow.Reset(http2.ErrCodeCancel)
	if err := <-stuck; err == nil {
		t.Error("a reset must end a blocked write")
	}
}

func TestLostConnectionEndsEverything(t *testing.T) {
	c := start(t, func(r *Request) {
		s, _ := r.Accept()
		s.conn.nc.Close()
	})
	s, err := c.Connect(within(t), "10.0.0.1:80")
	if err == nil {
		_, err = io.ReadAll(s)
	}
	if err == nil {
		t.Error("a lost connection must not look like an end")
	}
	<-c.Done()
	if c.Usable() {
		t.Error("usable after loss")
	}
	if _, err := c.Connect(within(t), "10.0.0.1:80"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("connect after loss: %v", err)
	}
}

func TestDrainLetsStreamsEnd(t *testing.T) {
	servers := make(chan *Conn, 1)
	cn, sn := connect(t)
	go func() { _ = Serve(sn, echo, func(c *Conn) { servers <- c }) }()
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	(<-servers).Drain()
	_, _ = io.WriteString(s, "x")
	_ = s.CloseWrite()
	if b, err := io.ReadAll(s); string(b) != "x" || err != nil {
		t.Fatalf("%q, %v", b, err)
	}
	<-c.Done()
	if _, err := c.Connect(within(t), "10.0.0.1:80"); !errors.Is(err, ErrUnavailable) {
		t.Errorf("connect after drain: %v", err)
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
	if _, err := c.Connect(ctx, "10.0.0.1:80"); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	var e ResetError
	if err := <-reset; !errors.As(err, &e) {
		t.Errorf("server saw %v", err)
	}
}
