package lesson

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/traffic"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// pods is a cluster of pods with logs, and with one page each.
type pods struct {
	traffic.Cluster
	list []traffic.Pod
	logs map[string]string // by the pod's name
	page string            // what every port of every pod serves
}

func (c *pods) Pods(_ context.Context, _, selector string) ([]traffic.Pod, error) {
	key, value, _ := strings.Cut(selector, "=")
	var found []traffic.Pod
	for _, p := range c.list {
		if p.Labels[key] == value {
			found = append(found, p)
		}
	}
	return found, nil
}

func (c *pods) Logs(_ context.Context, _, pod, _ string, _ time.Time) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(c.logs[pod])), nil
}

func (c *pods) PodPort(context.Context, string, string, int) (string, func(), error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, c.page)
	}))
	return server.Listener.Addr().String(), server.Close, nil
}

func (c *pods) site(on ...Lesson) probe.Site {
	return probe.Site{
		Cluster: c, Namespace: "default", TrustDomain: "cluster.local", Lessons: States(on...), Run: "r1", Error: 0.001,
	}
}

// verdicts joins the names and verdicts of checks.
func verdicts(checks []probe.Check) string {
	var words []string
	for _, c := range checks {
		words = append(words, c.Name+": "+string(c.Verdict))
	}
	return strings.Join(words, ", ")
}

func pod(name string, labels ...string) traffic.Pod {
	p := traffic.Pod{Name: name, UID: name, Ready: true, Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		p.Labels[labels[i]] = labels[i+1]
	}
	return p
}

// TestVersions judges the share of appb's second version by the logs of appb's pods.
func TestVersions(t *testing.T) {
	const shared = "share of version 2"
	for name, tc := range map[string]struct {
		first, second int
		split         int // the weight of version 1 that is claimed; 0: the lesson is off
		want          string
	}{
		"as set":                 {360, 40, 90, "logged by appb: proven, " + shared + ": proven"},
		"30 % where 10 % is set": {280, 120, 90, "logged by appb: proven, " + shared + ": refuted"},
		"none":                   {400, 0, 90, "logged by appb: proven, " + shared + ": refuted"},
		"half":                   {200, 200, 50, "logged by appb: proven, " + shared + ": proven"},
		"too few to tell":        {9, 1, 90, "logged by appb: proven, " + shared + ": inconclusive"},
		"off, and none":          {400, 0, 0, "logged by appb: proven"},
		"off, and still one":     {399, 1, 0, "logged by appb: refuted"},
	} {
		t.Run(name, func(t *testing.T) {
			line := fmt.Sprintf("time=%s level=INFO uri=/ip user_agent=%s\n",
				time.Now().Add(time.Minute).Format(time.RFC3339Nano), traffic.Agent("r1"))
			c := &pods{
				list: []traffic.Pod{pod("a", "app", "appb", "version", "v1"), pod("b", "app", "appb", "version", "v2")},
				logs: map[string]string{
					"a": strings.Repeat(line, tc.first) + strings.ReplaceAll(line, "r1", "r2"),
					"b": strings.Repeat(line, tc.second),
				},
			}
			gather, site := versions, c.site(Apps(), Waypoint(), Split(params.Split{Weight: tc.split}))
			if tc.split == 0 {
				gather, site = oneVersion, c.site(Apps(), Waypoint())
			}
			judge, err := gather(t.Context(), site)
			if err != nil {
				t.Fatal(err)
			}
			if got := verdicts(judge(t.Context(), probe.Measurement{Sent: tc.first + tc.second})); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			// A line that is missing leaves the share open.
			got := verdicts(judge(t.Context(), probe.Measurement{Sent: tc.first + tc.second + 1}))
			if !strings.HasPrefix(got, "logged by appb: inconclusive") {
				t.Errorf("with a line missing: %s", got)
			}
		})
	}
}

// TestDenials judges by the node proxy's counter and log who was refused.
func TestDenials(t *testing.T) {
	const line = `{"time":"2999-01-01T00:00:00Z","level":"error","message":"connection complete","src.identity":` +
		`"spiffe://cluster.local/ns/default/sa/%s","direction":"inbound","error":"connection closed due to policy ` +
		`rejection: explicitly denied by: default/%s"}` + "\n"
	page := func(denied int) string {
		return fmt.Sprintf("# TYPE istio_tcp_connections_failed_total counter\n"+
			"istio_tcp_connections_failed_total{reporter=\"source\",response_flags=\"DENY\"} 99\n"+
			"istio_tcp_connections_failed_total{reporter=\"destination\",response_flags=\"CONNECT\"} 7\n"+
			"istio_tcp_connections_failed_total{reporter=\"destination\",response_flags=\"DENY\"} %d\n", denied)
	}
	lines := func(n int, who, policy string) string { return strings.Repeat(fmt.Sprintf(line, who, policy), n) }
	for name, tc := range map[string]struct {
		counted         int
		log             string
		byCount, byLine probe.Verdict
	}{
		"every request":  {5, lines(5, "appa", "appb-l4"), probe.Proven, probe.Proven},
		"none":           {0, "", probe.Refuted, probe.Refuted},
		"not all":        {4, lines(4, "appa", "appb-l4"), probe.Refuted, probe.Inconclusive},
		"others as well": {6, lines(5, "appa", "appb-l4"), probe.Inconclusive, probe.Proven},
		"another policy": {5, lines(5, "appa", "other"), probe.Proven, probe.Refuted},
		"another caller": {5, lines(5, "appb", "appb-l4"), probe.Proven, probe.Refuted},
		"before": {
			5, strings.ReplaceAll(lines(5, "appa", "appb-l4"), "2999", "1999"), probe.Proven, probe.Refuted,
		},
		"by a waypoint": {5, strings.Repeat("RBAC: access denied\n", 5), probe.Proven, probe.Refuted},
	} {
		t.Run(name, func(t *testing.T) {
			c := &pods{
				list: []traffic.Pod{pod("z", "app", "ztunnel")}, logs: map[string]string{"z": tc.log}, page: page(10),
			}
			judge, err := deniedByNodeProxy(t.Context(), c.site(Apps(), L4(params.L4{})))
			if err != nil {
				t.Fatal(err)
			}
			c.page = page(10 + tc.counted)
			want := fmt.Sprintf("counted by the node proxy: %s, logged by the node proxy: %s", tc.byCount, tc.byLine)
			if got := verdicts(judge(t.Context(), probe.Measurement{Sent: 5})); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	c := &pods{page: page(0)}
	if _, err := deniedByNodeProxy(t.Context(), c.site()); err == nil {
		t.Error("no error without a node proxy")
	}
}

// TestTelemetryNotes says what cannot be shown.
func TestTelemetryNotes(t *testing.T) {
	built := session.Substitutes{
		"docker.io/istio/proxyv2:1.31.4-distroless": "upstream Envoy", "docker.io/prom/prometheus:v3.10.0": "no pages",
	}
	for name, tc := range map[string]struct {
		addons      []string
		substitutes session.Substitutes
		says        []string
	}{
		"from source": {
			[]string{"prometheus"},
			built,
			[]string{"no proxy counts istio_requests_total", "has no web pages", "not installed", "grafana, " +
				"jaeger, kiali"},
		},
		"Istio's own": {
			[]string{"prometheus", "grafana", "jaeger", "kiali"},
			nil,
			[]string{"nothing is claimed of grafana", "nothing is claimed of kiali"},
		},
	} {
		got := strings.Join(TelemetryNotes(tc.addons, tc.substitutes), "\n")
		for _, words := range tc.says {
			if !strings.Contains(got, words) {
				t.Errorf("%s: %q does not say %q", name, got, words)
			}
		}
	}
	if trouble := Telemetry().Possible(session.Config{}); trouble == nil || trouble.ID != problem.ObjectMissing.ID {
		t.Errorf("without Prometheus: %v", trouble)
	}
	if trouble := Telemetry().Possible(session.Config{Addons: []string{"prometheus"}}); trouble != nil {
		t.Errorf("with Prometheus: %v", trouble)
	}
}

// TestEdges compares what Prometheus has with what the node proxies count.
func TestEdges(t *testing.T) {
	const vector = `{"status":"success","data":{"resultType":"vector","result":[%s]}}`
	sample := func(identity, policy, value string) string {
		return fmt.Sprintf(`{"metric":{"source_principal":%q,"connection_security_policy":%q},"value":[1,%q]}`,
			identity, policy, value)
	}
	const appa = "spiffe://cluster.local/ns/default/sa/appa"
	for name, tc := range map[string]struct {
		answer string
		met    bool
		says   string
	}{
		"all":     {sample(appa, "mutual_tls", "9"), true, "9 connections"},
		"not yet": {sample(appa, "mutual_tls", "8"), false, "the node proxies count 9"},
		"plain text too": {
			sample(appa, "mutual_tls", "9") + "," + sample("unknown", "unknown", "1"), false, "others: 1 of unknown",
		},
		"another identity": {sample("spiffe://x", "mutual_tls", "9"), false, "spiffe://x"},
		"nothing":          {"", false, "0 connections"},
	} {
		c := &pods{
			list: []traffic.Pod{pod("p", "app.kubernetes.io/name", "prometheus")}, page: fmt.Sprintf(vector, tc.answer),
		}
		e := edge{"source", "appa", "appb-waypoint", appa}
		met, text, err := e.in(t.Context(), c.site(), 9)
		if err != nil || met != tc.met || !strings.Contains(text, tc.says) {
			t.Errorf("%s: %v, %q, %v", name, met, text, err)
		}
	}
	c := &pods{list: []traffic.Pod{pod("p", "app.kubernetes.io/name", "prometheus")}, page: `{"status":"error"}`}
	if _, _, err := (edge{}).in(t.Context(), c.site(), 1); err == nil {
		t.Error("an error of Prometheus is no error")
	}
}
