package traffic_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ambientlab/internal/probe/traffic"
)

func gateway(c *cluster) traffic.Gateway {
	return traffic.Gateway{
		Cluster: c, Namespace: "default", Selector: "x", Port: 80, Host: "appb.opssec.in",
		Service: "svc/gateway-istio",
	}
}

func TestGatewaySendsWhatWasAsked(t *testing.T) {
	var mutex sync.Mutex
	seen := map[string]int{}
	var now, most atomic.Int64
	c := &cluster{pods: ready, address: listen(t, func(w http.ResponseWriter, r *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer now.Add(-1)
		mutex.Lock()
		seen[r.Method+" "+r.Host+" "+r.URL.Path+" "+r.Header.Get(traffic.RunHeader)+" "+r.UserAgent()]++
		mutex.Unlock()
		w.Header().Set("x-envoy-upstream-service-time", "1")
	})}
	handed := 0
	batch, err := gateway(c).Send(t.Context(), load(), func(traffic.Reply) { handed++ })
	if err != nil {
		t.Fatal(err)
	}
	if len(batch.Replies) != 8 || handed != 8 || c.stopped != 1 || most.Load() > 2 {
		t.Errorf("%d replies, %d handed over, %d stopped, %d at a time", len(batch.Replies), handed, c.stopped,
			most.Load())
	}
	if seen["GET appb.opssec.in /headers r1 ambientlab/r1"] != 8 {
		t.Errorf("seen %v", seen)
	}
	for _, r := range batch.Replies {
		if r.Status != 200 || r.Latency <= 0 || r.By != "the application, through Envoy" {
			t.Errorf("reply %+v", r)
		}
	}
	if !strings.Contains(batch.Command, "port-forward svc/gateway-istio") ||
		!strings.Contains(batch.Command, "Host: appb.opssec.in") {
		t.Errorf("command %s", batch.Command)
	}
}

func TestGatewayKeepsToItsRate(t *testing.T) {
	c := &cluster{pods: ready, address: listen(t, func(http.ResponseWriter, *http.Request) {})}
	l := load()
	l.Rate, l.Count = 40, 5
	batch, err := gateway(c).Send(t.Context(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := batch.Replies[4].At.Sub(batch.Replies[0].At); took < 90*time.Millisecond {
		t.Errorf("five requests at 40 a second took %s", took)
	}
}

func TestGatewayOnceAndFailures(t *testing.T) {
	denied := &cluster{pods: ready, address: listen(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(traffic.DeniedBody))
	})}
	l := load()
	l.Method, l.Host = http.MethodPost, "appa.opssec.in"
	answer, err := gateway(denied).Once(t.Context(), l)
	if err != nil || answer.Status != 403 || answer.Body != traffic.DeniedBody || answer.Latency <= 0 {
		t.Errorf("%+v %v", answer, err)
	}
	reset := &cluster{pods: ready, address: listen(t, func(w http.ResponseWriter, _ *http.Request) {
		panic(http.ErrAbortHandler)
	})}
	batch, err := gateway(reset).Send(t.Context(), load(), nil)
	if err != nil || batch.Replies[0].Status != traffic.NoAnswer || len(batch.Errors) == 0 {
		t.Errorf("%+v %v", batch, err)
	}
	slow := &cluster{
		pods:    ready,
		address: listen(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
	}
	l = load()
	l.Count, l.Timeout = 1, 30*time.Millisecond
	batch, err = gateway(slow).Send(t.Context(), l, nil)
	if err != nil || len(batch.Errors) != 1 || batch.Errors[0] != "no answer in time" {
		t.Errorf("%+v %v", batch, err)
	}
	refused := &cluster{pods: ready, address: "127.0.0.1:1"}
	if batch, err = gateway(refused).Send(t.Context(), l, nil); err != nil || batch.Errors[0] != "connection refused" {
		t.Errorf("%+v %v", batch, err)
	}
	for _, c := range []*cluster{{pods: ready}, {}} {
		if _, err := gateway(c).Send(t.Context(), load(), nil); err == nil {
			t.Error("no way in, and yet it was sent")
		}
		if _, err := gateway(c).Once(t.Context(), load()); err == nil {
			t.Error("no way in, and yet it was sent")
		}
	}
	bad := load()
	bad.Run = ""
	if _, err := gateway(denied).Send(t.Context(), bad, nil); err == nil {
		t.Error("a batch without a run")
	}
	if _, err := gateway(denied).Once(t.Context(), bad); err == nil {
		t.Error("a request without a run")
	}
}

// Requests that an interruption cuts off are no replies.
func TestGatewayInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	arrived := make(chan struct{}, 8)
	c := &cluster{pods: ready, address: listen(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})}
	go func() {
		<-arrived
		cancel(errors.New("Ctrl-C"))
	}()
	batch, err := gateway(c).Send(ctx, load(), nil)
	if err == nil || err.Error() != "Ctrl-C" || len(batch.Replies) != 0 || len(batch.Errors) != 0 {
		t.Errorf("%+v %v", batch, err)
	}
}
