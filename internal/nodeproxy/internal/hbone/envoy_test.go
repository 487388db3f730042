//go:build e2e

package hbone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEnvoy connects both sides to Envoy, which gateways and waypoints run. NODEPROXY_ENVOY is the path of its binary.
// Most of all it shows that Envoy forwards the whole response of an application that ends first.
func TestEnvoy(t *testing.T) {
	binary := os.Getenv("NODEPROXY_ENVOY")
	if binary == "" {
		t.Skip("set NODEPROXY_ENVOY to the path of an Envoy binary")
	}
	answer := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	// Envoy as a server resets a tunnel when its application has ended first, and drops what does not fit in the
	// window.
	short := answer[:streamWindow/2]
	// The server's applications, by the authority of the tunnel.
	tunnels, server := listen(t), newServer(t)
	serveEach(tunnels, func(c *net.TCPConn) {
		server.Serve(context.Background(), c, func(r *Request) {
			s, err := r.Accept()
			if err != nil {
				return
			}
			behave(strings.TrimSuffix(r.Authority, ":80"), s, answer)
			_, _ = io.Copy(io.Discard, s)
		})
	})
	app := listen(t)
	serveEach(app, func(c *net.TCPConn) {
		defer c.Close()
		what := make([]byte, 5)
		if _, err := io.ReadFull(c, what); err != nil {
			return
		}
		behave(string(what), tcpStream{c}, short)
		_, _ = io.Copy(io.Discard, c)
	})
	ports := startEnvoy(t, binary, port(tunnels), port(app))

	t.Run("client of this package's server", func(t *testing.T) {
		for _, what := range []string{"close", "echoe"} {
			c := dial(t, ports[what])
			_, _ = io.WriteString(c, "question")
			if what == "echoe" {
				_ = c.CloseWrite()
			}
			want := map[string][]byte{"close": answer, "echoe": []byte("question")}[what]
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes of %d, %v", what, len(got), len(want), err)
			}
		}
		c := dial(t, ports["reset"])
		_, _ = io.WriteString(c, "question")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("reset: %v", err)
		}
		// An HTTP response without a length, which ends with the connection, as a waypoint forwards it.
		client := http.Client{Timeout: 10 * time.Second}
		for range 20 {
			resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", ports["http"]))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 || !bytes.Equal(got, answer) {
				t.Errorf("http: status %d, %d bytes of %d, %v", resp.StatusCode, len(got), len(answer), err)
			}
		}
	})
	t.Run("server of this package's client", func(t *testing.T) {
		near, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports["connect"]))
		if err != nil {
			t.Fatal(err)
		}
		c, err := Client(near)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open := func(what string) *ClientStream {
			t.Helper()
			s, err := c.Connect(within(t), "10.0.0.1:80", nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(s, what); err != nil {
				t.Fatal(err)
			}
			return s
		}
		if got, err := io.ReadAll(open("close")); err != nil || !bytes.Equal(got, short) {
			t.Errorf("close: %d bytes of %d, %v", len(got), len(short), err)
		}
		if got, err := exchange(open("echoe"), []byte("question")); err != nil || string(got) != "question" {
			t.Errorf("echo: %q, %v", got, err)
		}
		if _, err := io.ReadAll(open("resetx")); err == nil {
			t.Error("a reset looks like an end")
		}
	})
}

// stream is what both kinds of application use.
type stream interface {
	io.ReadWriter
	CloseWrite() error
	Abort()
}

type tcpStream struct{ *net.TCPConn }

func (s tcpStream) Abort() { _ = errors.Join(s.SetLinger(0), s.Close()) }

// behave is an application that ends first, one that answers when its client has ended, one that resets, or one that
// answers a request of HTTP and ends.
func behave(what string, s stream, answer []byte) {
	switch what {
	case "close":
		_, _ = s.Write(answer)
		_ = s.CloseWrite()
	case "echoe":
		got, _ := io.ReadAll(s)
		_, _ = s.Write(got)
		_ = s.CloseWrite()
	case "reset":
		_, _ = s.Read(make([]byte, 1))
		s.Abort()
	case "http":
		_, _ = s.Read(make([]byte, 4096))
		_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
		_, _ = s.Write(answer)
		_ = s.CloseWrite()
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func serveEach(l net.Listener, serve func(*net.TCPConn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
}

func dial(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

// startEnvoy starts an Envoy with a listener for each kind of application, which tunnels to the server at tunnels; one
// for HTTP before the last of these; and one that ends tunnels and connects to the application at app.
func startEnvoy(t *testing.T, binary string, tunnels, app int) map[string]int {
	t.Helper()
	ports := map[string]int{}
	for _, name := range []string{"close", "echoe", "reset", "http-tunnel", "http", "connect"} {
		l := listen(t)
		ports[name] = port(l)
		l.Close()
	}
	const (
		cluster = `{name: %q, connect_timeout: 5s, load_assignment: {cluster_name: %[1]q, ` +
			`endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, ` +
			`port_value: %d}}}}]}]}%s}`
		filter = `{name: %q, address: {socket_address: {address: 127.0.0.1, port_value: %d}}, ` +
			`filter_chains: [{filters: [{name: f, typed_config: %s}]}]}`
		tunnel = `{"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, ` +
			`stat_prefix: t, cluster: tunnels, tunneling_config: {hostname: "%s:80"}}`
		manager = `{"@type": ` +
			`type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, ` +
			`stat_prefix: h, http_filters: [{name: envoy.filters.http.router, ` +
			`typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}], %s}`
	)
	var listeners []string
	for name, to := range map[string]string{
		"close": "close", "echoe": "echoe", "reset": "reset",
		"http-tunnel": "http",
	} {
		listeners = append(listeners, fmt.Sprintf(filter, name, ports[name], fmt.Sprintf(tunnel, to)))
	}
	listeners = append(listeners,
		fmt.Sprintf(filter, "http", ports["http"],
			fmt.Sprintf(manager,
				`route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: /}, `+
					`route: {cluster: http}}]}]}`)),
		fmt.Sprintf(filter, "connect", ports["connect"],
			fmt.Sprintf(manager,
				`codec_type: HTTP2, http2_protocol_options: {allow_connect: true}, `+
					`upgrade_configs: [{upgrade_type: CONNECT}], route_config: {virtual_hosts: [{name: a, `+
					`domains: ["*"], routes: [{match: {connect_matcher: {}}, route: {cluster: app, `+
					`upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}]}]}`)))
	clusters := []string{
		fmt.Sprintf(cluster, "tunnels", tunnels,
			`, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: `+
				`{"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, `+
				`explicit_http_config: {http2_protocol_options: {}}}}`),
		fmt.Sprintf(cluster, "http", ports["http-tunnel"], ""),
		fmt.Sprintf(cluster, "app", app, ""),
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	config := fmt.Sprintf("{static_resources: {listeners: [%s], clusters: [%s]}}", strings.Join(listeners, ", "),
		strings.Join(clusters, ", "))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "--concurrency", "1", "--disable-hot-restart", "-l", "warning")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(30 * time.Second); ; {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports["connect"]))
		if err == nil {
			c.Close()
			return ports
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("Envoy does not listen: %v", err)
		}
	}
}
