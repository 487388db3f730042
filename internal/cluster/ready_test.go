package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// nodeServer is an API server that knows nodes: a list, and watch events sent to it.
type nodeServer struct {
	mu     sync.Mutex
	nodes  []*corev1.Node
	events chan metav1.WatchEvent
	// watched is closed when the first watch has begun.
	watched chan struct{}
	once    sync.Once
}

func (s *nodeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.URL.Path == "/version":
		_ = json.NewEncoder(w).Encode(map[string]string{"gitVersion": "v1.36.3"})
	case r.URL.Query().Get("watch") == "":
		list := corev1.NodeList{
			TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"},
			ListMeta: metav1.ListMeta{ResourceVersion: "1"},
		}
		s.mu.Lock()
		for _, n := range s.nodes {
			list.Items = append(list.Items, *n)
		}
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(list)
	case r.URL.Query().Get("sendInitialEvents") == "true":
		// What an API server says that cannot stream lists; the client then lists.
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).
			Encode(metav1.Status{
				TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status:   metav1.StatusFailure, Reason: metav1.StatusReasonInvalid,
				Code: http.StatusUnprocessableEntity,
			})
	default:
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		s.once.Do(func() { close(s.watched) })
		for {
			select {
			case ev := <-s.events:
				_ = json.NewEncoder(w).Encode(ev)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}
}

func (s *nodeServer) send(t *testing.T, kind string, n *corev1.Node) {
	t.Helper()
	n.TypeMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}
	n.ResourceVersion = "2"
	raw, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	ev := metav1.WatchEvent{Type: kind}
	ev.Object.Raw = raw
	s.events <- ev
}

func serveNodes(t *testing.T, nodes ...*corev1.Node) (*nodeServer, *rest.Config) {
	t.Helper()
	s := &nodeServer{nodes: nodes, events: make(chan metav1.WatchEvent), watched: make(chan struct{})}
	server := httptest.NewServer(s)
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return s, &rest.Config{Host: server.URL}
}

func TestWaitNodes(t *testing.T) {
	t.Run("all are ready at the first look", func(t *testing.T) {
		_, cfg := serveNodes(t, workerNode("n1", "10.0.0.1", corev1.ConditionTrue))
		if err := WaitNodes(t.Context(), cfg, 1); err != nil {
			t.Error(err)
		}
	})
	t.Run("a node joins, and then becomes ready", func(t *testing.T) {
		s, cfg := serveNodes(t, workerNode("n1", "10.0.0.1", corev1.ConditionTrue))
		done := make(chan error, 1)
		go func() { done <- WaitNodes(t.Context(), cfg, 2) }()
		<-s.watched
		s.send(t, "ADDED", workerNode("n2", "10.0.0.2", corev1.ConditionFalse))
		s.send(t, "MODIFIED", workerNode("n2", "10.0.0.2", corev1.ConditionTrue))
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("time runs out", func(t *testing.T) {
		_, cfg := serveNodes(
			t, workerNode("n1", "10.0.0.1", corev1.ConditionTrue), workerNode("n2", "10.0.0.2", corev1.ConditionFalse),
		)
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("five minutes are over")
		// The wait says what it waits for; that is when its time runs out here.
		e := engine.Engine{Sink: onProgress(func(string) { cancel(why) })}
		var err error
		_, _ = e.Apply(
			ctx,
			engine.Plan{Name: "p", Steps: []engine.Step{{ID: "s", Title: "s", Do: func(ctx context.Context) error {
				err = WaitNodes(ctx, cfg, 3)
				return err
			}}}},
		)
		for _, want := range []string{
			"node n2: KubeletNotReady: cni plugin not initialized",
			"1 of 3 nodes have not joined",
		} {
			if !problem.Is(err, problem.NotReady) || !errors.Is(err, why) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want it to say %q", err, want)
			}
		}
	})
}

func TestWaitNodesWithoutAnAPIServer(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("five minutes are over")
	cancel(why)
	err := WaitNodes(ctx, &rest.Config{Host: "https://127.0.0.1:1"}, 3)
	if !problem.Is(err, problem.ClusterUnreachable) || !errors.Is(err, why) ||
		!strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
}

type onProgress func(message string)

func (f onProgress) Handle(ev engine.Event) {
	if ev.Kind == engine.StepProgress {
		f(ev.Message)
	}
}

func TestLookAtNodes(t *testing.T) {
	_, cfg := serveNodes(
		t, workerNode("n1", "10.0.0.1", corev1.ConditionTrue), workerNode("n2", "10.0.0.2", corev1.ConditionUnknown),
	)
	version, reason, err := LookAtNodes(t.Context(), cfg)
	if err != nil || version != "v1.36.3" || !strings.Contains(reason, "node n2") {
		t.Errorf("got %q, %q, %v", version, reason, err)
	}
	got := notReady(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}})
	if !strings.Contains(got, "has not reported") {
		t.Errorf("a node without conditions: %q", got)
	}
}
