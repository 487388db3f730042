package mesh

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/problem"
)

// fakeZtunnel knows policies, which can change under way.
type fakeZtunnel struct {
	mu     sync.Mutex
	knows  []string
	err    error
	closed bool
}

func (z *fakeZtunnel) Policies(context.Context) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.Clone(z.knows), z.err
}

func (z *fakeZtunnel) Close() error {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.closed = true
	return nil
}

func (z *fakeZtunnel) forget() {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.knows = nil
}

// onNode puts a pod on a node.
func onNode(node, namespace, name string, labels map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// The object is gone at once, what it asked for is not: the node proxies of appb's nodes are waited for, and no others.
func TestWaitStrictOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		c.service.Spec.Selector = map[string]string{"app": "appb"}
		ztunnel := map[string]string{"app": "ztunnel"}
		c.pods = append(c.pods, onNode("node-1", "default", "appb-1", c.service.Spec.Selector),
			onNode("node-1", "istio-system", "ztunnel-1", ztunnel),
			onNode("node-2", "istio-system", "ztunnel-2", ztunnel))
		policy := []string{"default/other", "default/appb-only-via-waypoint"}
		near, far := &fakeZtunnel{knows: policy}, &fakeZtunnel{knows: policy}
		m := c.mesh()
		m.nodeProxy = func(_, pod string) nodeProxy {
			return map[string]nodeProxy{"ztunnel-1": near, "ztunnel-2": far}[pod]
		}

		held, reason, err := m.Check(t.Context(), StrictOff(target(), "default", "appb-only-via-waypoint"))
		if held || err != nil || !strings.Contains(reason, "node-1 still enforces policy appb-only-via-waypoint") {
			t.Errorf("one look gives %v, %q, %v", held, reason, err)
		}
		err = m.Wait(within(t, time.Second), StrictOff(target(), "default", "appb-only-via-waypoint"))
		if !problem.Is(err, problem.ConfigNotArrived) {
			t.Error(err)
		}
		const forgets = 1550 * time.Millisecond
		time.AfterFunc(forgets, near.forget)
		began := time.Now()
		if err := m.Wait(within(t, time.Minute), StrictOff(target(), "default", "appb-only-via-waypoint")); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < forgets || took > forgets+lookEvery {
			t.Errorf("returned after %s", took)
		}
		if !near.closed {
			t.Error("the port-forward to ztunnel is left open")
		}
		near.err = problem.New(problem.ProxyUnreachable, nil, "no connection to pod istio-system/ztunnel-1")
		if err := m.Wait(within(t, time.Second),
			StrictOff(target(), "default", "appb-only-via-waypoint")); !problem.Is(err, problem.ProxyUnreachable) {
			t.Error("a ztunnel that cannot be asked:", err)
		}
		m.nodeProxy = nil
		if held, reason, err := m.Check(t.Context(), StrictOff(target(), "default", "appb-only-via-waypoint")); !held ||
			err != nil {
			t.Error("where pods run nothing:", reason, err)
		}
	})
}

func TestZtunnelPolicies(t *testing.T) {
	var mu sync.Mutex
	dump := `{"workloads":[],"policies":[{"name":"appb-only-via-waypoint","namespace":"default",` +
		`"scope":"WorkloadSelector","action":"Deny","rules":[]},{"name":"istio_converted_static_strict",` +
		`"namespace":"istio-system"}]}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/config_dump" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, dump)
	}))
	t.Cleanup(server.Close)
	_, forwarder := startAPIServer(t, true, map[string]string{"15000": server.Listener.Addr().String()})
	z := ztunnel{forwarder.Admin("istio-system", "ztunnel-1")}
	defer func() { _ = z.Close() }()
	got, err := z.Policies(t.Context())
	if want := []string{"default/appb-only-via-waypoint", "istio-system/istio_converted_static_strict"}; err != nil ||
		!slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	// What is no dump of a ztunnel must not pass for one that has forgotten.
	for _, other := range []string{`{"configs":[]}`, `<html>`} {
		mu.Lock()
		dump = other
		mu.Unlock()
		if got, err := z.Policies(t.Context()); err == nil {
			t.Errorf("%s gives %q", other, got)
		}
	}
}
