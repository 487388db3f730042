package hbone

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestOtherClient: what the server makes of a request that another program sends.
func TestOtherClient(t *testing.T) {
	cn, sn := connect(t)
	seen := make(chan *Request, 1)
	server := newServer(t)
	go server.Serve(context.Background(), sn, func(r *Request) {
		seen <- r
		echo(r)
	})
	tr := &http2.Transport{
		AllowHTTP:      true,
		DialTLSContext: func(context.Context, string, string, *tls.Config) (net.Conn, error) { return cn, nil },
	}
	body, w := io.Pipe()
	req := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: "10.0.0.1:8080"}, Host: "10.0.0.1:8080",
		Header: http.Header{"Forwarded": {"for=1.2.3.4"}}, Body: body,
	}
	resp, err := tr.RoundTrip(req.WithContext(within(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if r := <-seen; r.Method != "CONNECT" || r.Authority != "10.0.0.1:8080" || r.Header("forwarded") != "for=1.2.3.4" {
		t.Errorf("server saw %q %q %v", r.Method, r.Authority, r.header)
	}
	if len(resp.Header) > 0 {
		t.Errorf("answered with headers %v", resp.Header)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		_, _ = w.Write(want)
		_ = w.Close()
	}()
	got, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

func TestOtherServer(t *testing.T) {
	cn, sn := connect(t)
	go (&http2.Server{MaxConcurrentStreams: 7}).ServeConn(sn, &http2.ServeConnOpts{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Host == "refused:1" {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Body.Read(buf)
				_, _ = w.Write(buf[:n])
				_ = http.NewResponseController(w).Flush()
				if err != nil {
					return
				}
			}
		}),
	})
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Connect(within(t), "refused:1", nil); err == nil || err.Error() != "http status: 503" {
		t.Errorf("got %v", err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	if got, err := exchange(s, want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	// The peer's limit is kept.
	for range 7 {
		if _, err := c.Connect(within(t), "10.0.0.1:80", nil); err != nil {
			t.Fatal(err)
		}
	}
	if c.Reserve() {
		t.Error("usable beyond the peer's limit of streams")
	}
}

// TestServerThatEndsFirstAndReadsOn: ztunnel and Envoy end their half of a stream and go on reading, which Go's server
// cannot do. The client then goes on sending. The server here is made of single frames.
func TestServerThatEndsFirstAndReadsOn(t *testing.T) {
	cn, sn := connect(t)
	got := make(chan string, 1)
	go func() {
		if _, err := io.ReadFull(sn, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		fr := http2.NewFramer(sn, sn)
		_ = fr.WriteSettings()
		var data bytes.Buffer
		for {
			f, err := fr.ReadFrame()
			if err != nil {
				return
			}
			switch f := f.(type) {
			case *http2.SettingsFrame:
				if !f.IsAck() {
					_ = fr.WriteSettingsAck()
				}
			case *http2.HeadersFrame:
				var b bytes.Buffer
				_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
				_ = fr.WriteHeaders(
					http2.HeadersFrameParam{StreamID: f.StreamID, BlockFragment: b.Bytes(), EndHeaders: true})
				_ = fr.WriteData(f.StreamID, true, []byte("bye"))
			case *http2.DataFrame:
				data.Write(f.Data())
				if f.StreamEnded() {
					got <- data.String()
				}
			}
		}
	}()
	c, err := Client(cn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := c.Connect(within(t), "10.0.0.1:80", nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "bye" || err != nil {
		t.Fatalf("client read %q, %v", b, err)
	}
	if _, err := io.WriteString(s, "still here"); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseWrite()
	select {
	case b := <-got:
		if b != "still here" {
			t.Errorf("server read %q", b)
		}
	case <-time.After(10 * time.Second):
		t.Error("the server never saw the end of the client's half")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestRapidReset: a peer that opens and resets streams without pause does not make the server run more handlers than it
// permits streams, and loses its connection.
func TestRapidReset(t *testing.T) {
	cn, sn := connect(t)
	running := make(chan struct{}, 100*maxStreams)
	release := make(chan struct{})
	served := make(chan struct{})
	server := newServer(t)
	go func() {
		defer close(served)
		server.Serve(context.Background(), sn, func(*Request) {
			running <- struct{}{}
			<-release
		})
	}()
	go func() { _, _ = io.Copy(io.Discard, cn) }()
	_, _ = io.WriteString(cn, http2.ClientPreface)
	fr := http2.NewFramer(cn, nil)
	_ = fr.WriteSettings()
	var headers bytes.Buffer
	enc := hpack.NewEncoder(&headers)
	var err error
	for id := uint32(1); err == nil && id < 200*maxStreams; id += 2 {
		headers.Reset()
		_ = enc.WriteField(hpack.HeaderField{Name: ":method", Value: "CONNECT"})
		_ = enc.WriteField(hpack.HeaderField{Name: ":authority", Value: "a:1"})
		err = errors.Join(
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: headers.Bytes(), EndHeaders: true}),
			fr.WriteRSTStream(id, http2.ErrCodeCancel))
	}
	if err == nil {
		// What was written may still be on its way; the connection closes within the server's GOAWAY timeout.
		_ = cn.SetDeadline(time.Now().Add(10 * time.Second))
		for err == nil {
			err = fr.WritePing(false, [8]byte{})
		}
	}
	if n := len(running); n > maxStreams {
		t.Errorf("%d handlers ran at once, more than %d", n, maxStreams)
	}
	close(release)
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Error("the connection of a hostile peer goes on")
	}
}

// FuzzServe gives a server what a peer with a good certificate may send after its handshake.
func FuzzServe(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = fr.WriteHeaders(
		http2.HeadersFrameParam{
			StreamID:      1,
			BlockFragment: []byte{0x42, 7, 'C', 'O', 'N', 'N', 'E', 'C', 'T', 0x41, 3, 'a', ':', '1'},
			EndHeaders:    true,
		})
	_ = fr.WriteData(1, false, []byte("hello"))
	_ = fr.WriteWindowUpdate(1, 10)
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteGoAway(1, 0, nil)
	f.Add(b.Bytes())
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) { feed(t, append([]byte(http2.ClientPreface), in...), true) })
	})
}

// FuzzClient gives a client what a peer with a good certificate may answer.
func FuzzClient(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = fr.WriteData(1, true, []byte("hello"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) { synctest.Test(t, func(t *testing.T) { feed(t, in, false) }) })
}

// feed gives in to one side, which must end by itself once its peer has closed the connection. Time is simulated, since
// the server waits a second after an error.
func feed(t *testing.T, in []byte, server bool) {
	near, far := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if server {
			s, err := NewServer(slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
				return
			}
			s.Serve(context.Background(), near, echo)
			return
		}
		c, err := Client(near)
		if err != nil {
			return
		}
		if s, err := c.Connect(t.Context(), "10.0.0.1:80", nil); err == nil {
			_, _ = io.Copy(io.Discard, s)
			s.Abort()
		}
		<-c.Done()
	}()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	_ = far.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, _ = far.Write(in)
	_ = far.Close()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("did not end after its peer had gone")
	}
}
