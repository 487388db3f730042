package mesh

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"ambientlab/internal/problem"
)

// Get reads a path of an HTTP server in a pod through a port-forward of its own. The error is a
// problem.ProxyUnreachable where the server does not answer with 200.
func (f *Forwarder) Get(ctx context.Context, namespace, pod string, port int, path string) ([]byte, error) {
	tunnel := f.Tunnel(namespace, pod, port)
	defer func() { _ = tunnel.Close() }()
	transport := &http.Transport{DisableKeepAlives: true}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return tunnel.DialContext(ctx) }
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://localhost:%d%s", port, path),
		http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, problem.New(problem.ProxyUnreachable, err, "%s does not answer %s", tunnel, path)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, problem.New(problem.ProxyUnreachable, err, "%s does not answer %s", tunnel, path)
	}
	if response.StatusCode != http.StatusOK {
		return nil, problem.New(problem.ProxyUnreachable, nil, "%s answers %s with %s", tunnel, path, response.Status)
	}
	return body, nil
}
