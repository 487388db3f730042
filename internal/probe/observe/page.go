package observe

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"ambientlab/internal/probe/traffic"
)

// get reads a page of a pod over a port-forward.
func get(ctx context.Context, cluster traffic.Cluster, namespace, pod string, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	address, stop, err := cluster.PodPort(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	defer stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("port %d answers %s", port, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 8<<20))
}
