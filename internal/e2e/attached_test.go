//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/observe"
)

// testAttached attaches to the waypoint as sm:verify does. Where that did not work, it would follow the log instead,
// which takes more time on a small machine, and no other test would notice.
func (l *lab) testAttached(t *testing.T, ip string) {
	cluster := l.proofs(t, on()).World.Cluster()
	pods, err := cluster.Pods(t.Context(), "default", mesh.GatewayLabel+"="+names.Waypoint)
	if err != nil || len(pods) != 1 {
		t.Fatalf("%d pods of the waypoint, %v", len(pods), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var attached sync.WaitGroup
	defer attached.Wait()
	defer cancel()
	reader, writer := io.Pipe()
	defer reader.Close()
	attached.Go(func() {
		err := cluster.Attach(ctx, "default", pods[0].Name, "istio-proxy", writer)
		if ctx.Err() == nil {
			t.Errorf("attaching ended: %v", err)
		}
		_ = writer.CloseWithError(err)
	})
	lines := make(chan string, 1000)
	attached.Go(func() {
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			lines <- scanner.Text()
		}
	})
	until(t, "a line of the access log", func() (bool, string) {
		expect(t, ip, http.MethodGet, "/ip", http.StatusOK, "")
		for last := "nothing"; ; {
			select {
			case last = <-lines:
				if strings.Contains(last, "\tdebug\t") {
					t.Fatalf("attached, standard error comes too: %s", last)
				}
				if _, ok := observe.Parse(last); ok {
					return true, ""
				}
			default:
				return false, last
			}
		}
	})
}
