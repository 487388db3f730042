package hbone

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// Envoy is not at hand in a unit test; Go's own HTTP/2 is the second implementation here.

func TestOtherClient(t *testing.T) {
	cn, sn := connect(t)
	seen := make(chan *Request, 1)
	go func() {
		_ = Serve(sn, func(r *Request) {
			seen <- r
			echo(r)
		}, nil)
	}()
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
		t.Errorf("server saw %q %q %v", r.Method, r.Authority, r.Headers)
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
	if _, err := c.Connect(within(t), "refused:1"); err == nil || err.Error() != "http status: 503" {
		t.Errorf("got %v", err)
	}
	s, err := c.Connect(within(t), "10.0.0.1:80")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		_, _ = s.Write(want)
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	// The peer's limit is kept.
	for range 7 {
		if _, err := c.Connect(within(t), "10.0.0.1:80"); err != nil {
			t.Fatal(err)
		}
	}
	if c.Usable() {
		t.Error("usable beyond the peer's limit of streams")
	}
}

// FuzzServe feeds a server whatever a peer with a good certificate may send after its handshake.
func FuzzServe(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x42, 7, 'C', 'O', 'N', 'N', 'E', 'C', 'T', 0x41, 3, 'a', ':', '1'}, EndHeaders: true})
	_ = fr.WriteData(1, false, []byte("hello"))
	_ = fr.WriteWindowUpdate(1, 10)
	_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
	_ = fr.WritePing(false, [8]byte{})
	_ = fr.WriteGoAway(1, 0, nil)
	f.Add(b.Bytes())
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) { feed(t, append([]byte(http2.ClientPreface), in...), true) })
}

// FuzzClient feeds a client whatever a peer with a good certificate may answer.
func FuzzClient(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = fr.WriteData(1, true, []byte("hello"))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) { feed(t, in, false) })
}

// feed gives in to one side and wants it to end by itself once the input has.
func feed(t *testing.T, in []byte, server bool) {
	near, far := net.Pipe()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if server {
			_ = Serve(near, func(r *Request) {
				s, err := r.Accept()
				if err != nil {
					return
				}
				_, _ = io.Copy(s, s)
				_ = s.CloseWrite()
			}, nil)
			return
		}
		c, err := Client(near)
		if err != nil {
			return
		}
		if s, err := c.Connect(t.Context(), "10.0.0.1:80"); err == nil {
			_, _ = io.Copy(io.Discard, s)
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
