package lesson

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

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

// verdicts joins the names and verdicts of checks; nothing is judged later.
func verdicts(checks []probe.Check, _ probe.Later) string {
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
			gather, site := versions, c.site(Apps(), Waypoint(), Split(tc.split))
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
			judge, err := deniedByNodeProxy(t.Context(), c.site(Apps(), L4(false)))
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
		"docker.io/jaegertracing/jaeger:2.17.0": "no pages",
	}
	for name, tc := range map[string]struct {
		addons      []string
		substitutes session.Substitutes
		says        []string
	}{
		"from source": {
			[]string{"prometheus", "jaeger"},
			built,
			[]string{
				"no proxy counts istio_requests_total",
				"this Prometheus has no web pages", "this Jaeger has no web pages",
				"not installed, so nothing is claimed of it: grafana, kiali",
			},
		},
		"Istio's own": {
			[]string{"prometheus", "grafana", "jaeger", "kiali"},
			nil,
			nil,
		},
	} {
		got := strings.Join(TelemetryNotes(tc.addons, tc.substitutes), "\n")
		if got != "" && tc.says == nil {
			t.Errorf("%s: %q, and everything can be shown", name, got)
		}
		for _, words := range tc.says {
			if !strings.Contains(got, words) {
				t.Errorf("%s: %q does not say %q", name, got, words)
			}
		}
	}
	if trouble := Telemetry().Possible(session.Config{}); trouble == nil || trouble.ID != problem.ObjectMissing.ID {
		t.Errorf("without an add-on: %v", trouble)
	}
	if trouble := Telemetry().Possible(session.Config{Addons: []string{"jaeger"}}); trouble != nil {
		t.Errorf("with Jaeger: %v", trouble)
	}
}

// TestSpecsHaveTheNames compares the names of lesson split's and lesson l4's objects with those in their specs.
func TestSpecsHaveTheNames(t *testing.T) {
	for _, tc := range []struct {
		lesson Lesson
		want   []string
	}{
		{Split(50), []string{
			"HTTPRoute " + SplitRoute, "Service " + appbV1, "Service " + appbV2, "Deployment " + appbV2,
		}},
		{L4(false), []string{"AuthorizationPolicy " + L4Policy}},
		{L4(true), []string{"AuthorizationPolicy " + L4Policy}},
	} {
		objects, err := tc.lesson.Objects(session.Config{Namespace: "default", TrustDomain: "cluster.local"})
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, o := range objects {
			found = append(found, o.GetKind()+" "+o.GetName())
		}
		for _, want := range tc.want {
			if !slices.Contains(found, want) {
				t.Errorf("lesson %s has %v, not %s", tc.lesson.Name, found, want)
			}
		}
	}
}

// TestTelemetryClaims makes no claim about an add-on that is not installed, nor about a metric that no proxy counts.
func TestTelemetryClaims(t *testing.T) {
	lessons := States(Apps(), Waypoint(), Telemetry())
	for name, tc := range map[string]struct {
		installed probe.Installed
		want      string
	}{
		"Prometheus from source": {
			probe.Installed{Addons: []string{"prometheus"}}, "prometheus-targets prometheus-edges",
		},
		"Jaeger alone": {probe.Installed{Addons: []string{"jaeger"}}, "jaeger-trace jaeger-requests"},
		"all four, Istio's proxy": {
			probe.Installed{Addons: []string{"prometheus", "grafana", "jaeger", "kiali"}, IstioProxy: true},
			"prometheus-targets prometheus-edges prometheus-requests jaeger-trace jaeger-requests kiali-valid " +
				"kiali-graph grafana-dashboards",
		},
		"nothing": {probe.Installed{IstioProxy: true}, ""},
	} {
		var made []string
		for _, c := range Claims() {
			if c.Lesson == "telemetry" && c.When(lessons) && c.Where(tc.installed) {
				made = append(made, c.ID)
			}
		}
		if got := strings.Join(made, " "); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
