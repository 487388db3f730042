package mesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/problem"
)

// Proxy is one proxy that can be asked for its configuration and whether it is connected to istiod.
type Proxy interface {
	// Dump gives the configuration of the proxy: what it runs, or what istiod sends to it.
	Dump(ctx context.Context) (*Dump, error)
	// Connected tells whether the proxy has a stream to istiod.
	Connected(ctx context.Context) (bool, error)
	// Close releases what the Proxy uses, such as a port-forward.
	Close() error
}

// Admin is an Envoy's admin interface, reached by port-forward.
type Admin struct {
	tunnel *Tunnel
	client *http.Client
}

const (
	// adminPort is where pilot-agent lets Envoy's admin interface listen, on loopback.
	adminPort = 15000
	// adminLimit bounds one request, so that a proxy that hangs does not hide behind the deadline of the whole wait.
	adminLimit = 10 * time.Second
)

// Admin gives the admin interface of a pod's Envoy. Its port-forward is opened by the first request and reused by all
// that follow; Close ends it.
func (f *Forwarder) Admin(namespace, pod string) *Admin {
	return newAdmin(f.Tunnel(namespace, pod, adminPort))
}

func newAdmin(tunnel *Tunnel) *Admin {
	transport := &http.Transport{MaxIdleConnsPerHost: 1, ResponseHeaderTimeout: adminLimit, DisableCompression: true}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return tunnel.DialContext(ctx) }
	return &Admin{tunnel: tunnel, client: &http.Client{Transport: transport}}
}

// Get reads a path of an HTTP server in a pod through a port-forward of its own, with the errors of Admin.Get.
func (f *Forwarder) Get(ctx context.Context, namespace, pod string, port int, path string) ([]byte, error) {
	server := newAdmin(f.Tunnel(namespace, pod, port))
	defer func() { _ = server.Close() }()
	return server.Get(ctx, path)
}

// Get reads a path of the admin interface, such as /config_dump. The error is a problem.ProxyUnreachable where the
// proxy cannot be reached.
func (a *Admin) Get(ctx context.Context, path string) ([]byte, error) {
	limited, cancel := context.WithTimeout(ctx, adminLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, "http://localhost:15000"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, a.failed(path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, a.failed(path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, problem.New(problem.ProxyUnreachable, nil, "%s answers %s to %s: %.200s", a.tunnel, resp.Status,
			path, body)
	}
	return body, nil
}

func (a *Admin) failed(path string, err error) error {
	if found := problem.All(err); len(found) > 0 {
		return found[0] // it names the pod already; net/http's wrapping adds a made-up address
	}
	return problem.New(problem.ProxyUnreachable, err, "%s does not answer %s", a.tunnel, path)
}

// Dump implements Proxy. Endpoints are included.
func (a *Admin) Dump(ctx context.Context) (*Dump, error) {
	body, err := a.Get(ctx, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	d, err := ParseDump(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.tunnel, err)
	}
	// Asked after the dump: what was replaced by what the dump holds is draining by now.
	if d.Draining, err = a.draining(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// draining counts what still serves connections by an older configuration. Envoy replaces a filter chain for new
// connections at once, but lets those that are open go on with the old one: each is answered by it once more before it
// is closed, and those that are idle stay until the drain time (the mesh's drainDuration) is over. So a request that a
// gateway sends over a pooled connection is judged by the old policy, although /config_dump already shows the new one.
func (a *Admin) draining(ctx context.Context) (int, error) {
	stats, err := a.stats(ctx, "^listener_manager.total_(filter_chains|listeners)_draining$")
	if err != nil {
		return 0, err
	}
	total := 0
	for _, n := range stats {
		total += n
	}
	return total, nil
}

// Connected implements Proxy, by Envoy's gauge control_plane.connected_state where the proxy keeps it. Istio's default
// list of kept statistics leaves it out, so otherwise the open streams of the cluster xds-grpc are counted, of which
// configuration takes one: pilot-agent, at its other end, closes it when it loses istiod.
func (a *Admin) Connected(ctx context.Context) (bool, error) {
	stats, err := a.stats(ctx, "^(control_plane.connected_state|cluster.xds-grpc.upstream_rq_active)$")
	if err != nil {
		return false, err
	}
	for _, name := range []string{"control_plane.connected_state", "cluster.xds-grpc.upstream_rq_active"} {
		if value, kept := stats[name]; kept {
			return value > 0, nil
		}
	}
	return false, problem.New(problem.ProxyUnreachable, nil,
		"the proxy in %s does not say whether it is connected to istiod", a.tunnel)
}

// stats reads the numbers whose names match a regular expression.
func (a *Admin) stats(ctx context.Context, names string) (map[string]int, error) {
	body, err := a.Get(ctx, "/stats?filter="+url.QueryEscape(names))
	if err != nil {
		return nil, err
	}
	values := map[string]int{}
	for line := range strings.Lines(string(body)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		value, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("the proxy in %s gives the statistic %q, which is no number", a.tunnel, line)
		}
		values[name] = value
	}
	return values, nil
}

// Close implements Proxy.
func (a *Admin) Close() error {
	a.client.CloseIdleConnections()
	return a.tunnel.Close()
}
