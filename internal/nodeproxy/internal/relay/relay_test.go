package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

type counts struct{ request, response int }

func (c *counts) Request(n int)  { c.request += n }
func (c *counts) Response(n int) { c.response += n }

// pair returns two ends of a loopback connection.
func pair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	y, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a, b = x.(*net.TCPConn), y.(*net.TCPConn)
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(t *testing.T, client, server *net.TCPConn)
		fail bool
		want counts
	}{
		"client ends first": {func(t *testing.T, client, server *net.TCPConn) {
			_, _ = io.WriteString(client, "question")
			_ = client.CloseWrite()
			expect(t, server, "question")
			_, _ = io.WriteString(server, "answer!")
			_ = server.CloseWrite()
			expect(t, client, "answer!")
		}, false, counts{8, 7}},
		"server ends first": {func(t *testing.T, client, server *net.TCPConn) {
			_, _ = io.WriteString(server, "bye")
			_ = server.CloseWrite()
			expect(t, client, "bye")
			_, _ = io.WriteString(client, "more")
			_ = client.CloseWrite()
			expect(t, server, "more")
		}, false, counts{4, 3}},
		"client resets": {func(t *testing.T, client, server *net.TCPConn) {
			_ = client.SetLinger(0)
			_ = client.Close()
			if _, err := io.ReadAll(server); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("server saw %v", err)
			}
		}, true, counts{}},
		"server resets": {func(t *testing.T, client, server *net.TCPConn) {
			_ = server.SetLinger(0)
			_ = server.Close()
			if _, err := io.ReadAll(client); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("client saw %v", err)
			}
		}, true, counts{}},
	} {
		t.Run(name, func(t *testing.T) {
			client, near := pair(t)
			far, server := pair(t)
			var got counts
			ended := make(chan error, 1)
			go func() { ended <- (&Relay{}).Run(TCP(near), TCP(far), &got) }()
			c.act(t, client, server)
			if err := <-ended; (err != nil) != c.fail {
				t.Errorf("relay ended with %v", err)
			}
			if got != c.want {
				t.Errorf("counted %+v, want %+v", got, c.want)
			}
		})
	}
}

func expect(t *testing.T, c *net.TCPConn, want string) {
	t.Helper()
	if b, err := io.ReadAll(c); string(b) != want || err != nil {
		t.Errorf("read %q, %v; want %q", b, err, want)
	}
}
