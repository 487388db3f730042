package traffic_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ambientlab/internal/probe/traffic"
)

// cluster is a Cluster whose pods are data and whose commands print what the real fortio v1.75.3 printed.
type cluster struct {
	pods    []traffic.Pod
	podsErr error
	stdout  []byte
	stderr  []byte
	status  int
	execErr error
	hang    bool
	command []string
	address string
	stopped int
}

func (c *cluster) Pods(context.Context, string, string) ([]traffic.Pod, error) {
	return c.pods, c.podsErr
}

func (c *cluster) Exec(ctx context.Context, _, _, _ string, command []string, stdout, stderr io.Writer) (int, error) {
	c.command = command
	_, _ = stderr.Write(c.stderr)
	_, _ = io.Copy(stdout, bytes.NewReader(c.stdout))
	if c.hang {
		<-ctx.Done()
		return 0, context.Cause(ctx)
	}
	return c.status, c.execErr
}

func (c *cluster) Attach(context.Context, string, string, string, io.Writer) error {
	return errors.ErrUnsupported
}

func (c *cluster) PodPort(context.Context, string, string, int) (string, func(), error) {
	if c.address == "" {
		return "", nil, errors.New("no way in")
	}
	return c.address, func() { c.stopped++ }, nil
}

func (c *cluster) Logs(context.Context, string, string, string, time.Time) (io.ReadCloser, error) {
	return nil, errors.ErrUnsupported
}

func (c *cluster) StartPod(context.Context, traffic.PodSpec) (traffic.Pod, error) {
	return traffic.Pod{}, errors.ErrUnsupported
}

func (c *cluster) RemovePod(context.Context, string, string) error { return errors.ErrUnsupported }

var ready = []traffic.Pod{{Name: "appa-0", UID: "u0"}, {Name: "appa-1", UID: "u1", Ready: true, Restarts: 2}}

func captured(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "..", "testdata", "probe", "fortio", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func load() traffic.Load {
	return traffic.Load{
		Method: http.MethodGet, Path: "/headers", Count: 8, Rate: 100, Concurrency: 2,
		Timeout: 5 * time.Second, Run: "r1",
	}
}

func listen(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
