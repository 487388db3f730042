package addons

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// cluster has one pod of each add-on, whose HTTP server answers by path. Others than these have no page.
type cluster struct {
	traffic.Cluster
	pages map[string]string
	asked []string
}

func (c *cluster) Pods(_ context.Context, _, selector string) ([]traffic.Pod, error) {
	return []traffic.Pod{{Name: selector, Ready: true}}, nil
}

func (c *cluster) PodPort(context.Context, string, string, int) (string, func(), error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.asked = append(c.asked, r.URL.String())
		page, known := c.pages[r.URL.Path]
		if !known {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(page))
	}))
	return server.Listener.Addr().String(), server.Close, nil
}

const run = "0123456789ab"

func site(c *cluster, on ...string) probe.Site {
	var lessons probe.Lessons
	for _, name := range on {
		lessons = append(lessons, probe.LessonState{Name: name, On: true})
	}
	return probe.Site{
		Cluster: c, Namespace: "default", TrustDomain: "cluster.local", Lessons: lessons, Run: run, Error: 0.001,
	}
}

// says wants a verdict with a text, and no error.
func says(t *testing.T, name string, verdict probe.Verdict, text string, err error, want probe.Verdict, words string) {
	t.Helper()
	if err != nil || verdict != want || !strings.Contains(text, words) {
		t.Errorf("%s: %s, %q, %v; want %s with %q", name, verdict, text, err, want, words)
	}
}

// settled gives the only check of a judge, now or later.
func settled(ctx context.Context, judge probe.Judge, m probe.Measurement) probe.Check {
	checks, later := judge(ctx, m)
	if later != nil {
		checks = append(checks, later(ctx)...)
	}
	return checks[0]
}

// An add-on is asked until its answer is proven, and as long as its patience lasts.
func TestEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []probe.Verdict{"", probe.Refuted, probe.Inconclusive, probe.Proven, probe.Refuted}
		asked := 0
		ask := func(context.Context) (probe.Verdict, string, error) {
			asked++
			if asked == 1 {
				return "", "", fmt.Errorf("no answer")
			}
			return answers[asked-1], fmt.Sprint("answer ", asked), nil
		}
		began := time.Now()
		check := eventually("Jaeger", 10*time.Second, ask)(t.Context())
		if len(check) != 1 || check[0] != (probe.Check{Name: "Jaeger", Verdict: probe.Proven, Text: "answer 4"}) {
			t.Errorf("got %+v", check)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("it took %s", took)
		}
		refuting := func(context.Context) (probe.Verdict, string, error) { return probe.Refuted, "never", nil }
		check = eventually("Jaeger", 10*time.Second, refuting)(t.Context())
		if check[0].Verdict != probe.Refuted || time.Since(began) != 13*time.Second {
			t.Errorf("got %+v after %s", check, time.Since(began))
		}
		failing := func(context.Context) (probe.Verdict, string, error) { return "", "", fmt.Errorf("refused") }
		check = eventually("Jaeger", time.Second, failing)(t.Context())
		if check[0].Verdict != probe.Inconclusive || check[0].Text != "refused" {
			t.Errorf("got %+v", check)
		}
	})
}

// TestTargetsUp wants every proxy read, and nothing else of the lab down.
func TestTargetsUp(t *testing.T) {
	sample := func(pod, namespace, value string) string {
		return fmt.Sprintf(`{"metric":{"pod":%q,"namespace":%q},"value":[1,%q]}`, pod, namespace, value)
	}
	// The fake's pods have the names of their selectors.
	const ztunnel, gateway = "app=ztunnel", "gateway.networking.k8s.io/gateway-name=gateway"
	proxies := sample(ztunnel, "istio-system", "1") + "," + sample(gateway, "default", "1")
	for name, tc := range map[string]struct {
		answer string
		want   probe.Verdict
		says   string
	}{
		"all":        {proxies, probe.Proven, "read: app=ztunnel"},
		"no gateway": {sample(ztunnel, "istio-system", "1"), probe.Refuted, "not read: " + gateway},
		"one is down": {
			sample(ztunnel, "istio-system", "0") + "," + sample(gateway, "default", "1"), probe.Refuted, ztunnel,
		},
		"MetalLB, which needs a token": {
			proxies + "," + sample("speaker-x", "metallb-system", "0"), probe.Refuted, "speaker-x (it is annotated",
		},
		"istio-cni, which is simulated without Docker": {
			proxies + "," + sample("istio-cni-node-x", "istio-system", "0"), probe.Proven, "read",
		},
		"a pod that is not the lab's": {proxies + "," + sample("x", "shop", "0"), probe.Proven, "read"},
	} {
		c := &cluster{pages: map[string]string{"/api/v1/query": fmt.Sprintf(vector, tc.answer)}}
		verdict, text, err := targetsUp(t.Context(), site(c), probe.Measurement{})
		says(t, name, verdict, text, err, tc.want, tc.says)
	}
}

const vector = `{"status":"success","data":{"resultType":"vector","result":[%s]}}`

// TestEdges compares what Prometheus has with what the node proxies count.
func TestEdges(t *testing.T) {
	sample := func(identity, policy, value string) string {
		return fmt.Sprintf(`{"metric":{"source_principal":%q,"connection_security_policy":%q},"value":[1,%q]}`,
			identity, policy, value)
	}
	const appa = "spiffe://cluster.local/ns/default/sa/appa"
	for name, tc := range map[string]struct {
		answer string
		want   probe.Verdict
		says   string
	}{
		"all":     {sample(appa, "mutual_tls", "9"), probe.Proven, "9 connections"},
		"not yet": {sample(appa, "mutual_tls", "8"), probe.Refuted, "the node proxies count 9"},
		"plain text too": {
			sample(appa, "mutual_tls", "9") + "," + sample("unknown", "unknown", "1"), probe.Refuted,
			"others: 1 of unknown",
		},
		"another identity": {sample("spiffe://x", "mutual_tls", "9"), probe.Refuted, "spiffe://x"},
		"nothing":          {"", probe.Refuted, "0 connections"},
	} {
		c := &cluster{pages: map[string]string{"/api/v1/query": fmt.Sprintf(vector, tc.answer)}}
		verdict, text, err := edge{"source", "appa", "appb-waypoint", appa}.in(t.Context(), site(c), 9)
		says(t, name, verdict, text, err, tc.want, tc.says)
	}
	c := &cluster{pages: map[string]string{"/api/v1/query": `{"status":"error"}`}}
	if _, _, err := (edge{}).in(t.Context(), site(c), 1); err == nil {
		t.Error("an error of Prometheus is no error")
	}
}

// span is one of a trace; parent may be empty.
type span struct {
	id, parent, service string
	duration            time.Duration
	tags                map[string]any
}

// traces writes Jaeger's answer for one trace.
func traces(spans ...span) string {
	type object = map[string]any
	list, processes := []object{}, object{}
	for i, s := range spans {
		process := fmt.Sprint("p", i)
		processes[process] = object{"serviceName": s.service}
		tags, references := []object{}, []object{}
		for key, value := range s.tags {
			tags = append(tags, object{"key": key, "type": "string", "value": value})
		}
		if s.parent != "" {
			references = append(references, object{"refType": "CHILD_OF", "traceID": "t", "spanID": s.parent})
		}
		list = append(list, object{
			"traceID": "t", "spanID": s.id, "processID": process, "references": references, "tags": tags,
			"duration": s.duration.Microseconds(),
		})
	}
	raw, _ := json.Marshal(object{"data": []object{{"traceID": "t", "spans": list, "processes": processes}}})
	return string(raw)
}

// TestTrace wants each request's span of the waypoint under one of the gateway, under the caller's.
func TestTrace(t *testing.T) {
	const gateway, waypoint = "gateway-istio.default", "appb-waypoint.default"
	caller := traffic.SpanID(run)
	whole := []span{
		{id: "a1", parent: caller, service: gateway},
		{id: "a2", parent: "a1", service: gateway},
		{id: "a3", parent: "a2", service: waypoint},
		{id: "b1", parent: caller, service: gateway},
		{id: "b3", parent: "b1", service: waypoint},
	}
	of := func(change func(spans []span)) []span {
		spans := slices.Clone(whole)
		change(spans)
		return spans
	}
	for name, tc := range map[string]struct {
		spans []span
		want  probe.Verdict
		says  string
	}{
		"whole":             {whole, probe.Proven, "5 spans: 2 of the gateway"},
		"one not yet there": {whole[:4], probe.Refuted, "1 of these with one of the waypoint"},
		"no gateway": {
			of(func(s []span) { s[0].service, s[1].service = "x", "x" }), probe.Refuted, "1 of the gateway",
		},
		"a trace of its own": {of(func(s []span) { s[3].parent = "" }), probe.Refuted, "1 of the gateway"},
		"a waypoint that begins a trace": {
			of(func(s []span) { s[4].parent = "" }), probe.Refuted, "1 of these with one of the waypoint",
		},
		"a circle": {
			of(func(s []span) { s[3].parent = "b3" }), probe.Refuted, "1 of the gateway",
		},
		"nothing": {nil, probe.Refuted, "0 spans"},
	} {
		c := &cluster{pages: map[string]string{"/jaeger/api/traces": traces(tc.spans...)}}
		verdict, text, err := trace(t.Context(), site(c, "waypoint"), probe.Measurement{Sent: 2})
		says(t, name, verdict, text, err, tc.want, tc.says)
		if want := "/jaeger/api/traces?traceID=" + traffic.TraceID(run); c.asked[0] != want {
			t.Errorf("asked %s, want %s", c.asked[0], want)
		}
	}
	c := &cluster{pages: map[string]string{
		"/jaeger/api/traces": `{"data":[],"errors":[{"code":0,"msg":"trace not found","traceID":"t"}]}`,
	}}
	verdict, text, err := trace(t.Context(), site(c), probe.Measurement{Sent: 2})
	says(t, "not found", verdict, text, err, probe.Refuted, "0 spans")
	c.pages["/jaeger/api/traces"] = `{"data":null,"errors":[{"code":500,"msg":"storage is full"}]}`
	if _, _, err := trace(t.Context(), site(c), probe.Measurement{Sent: 2}); err == nil {
		t.Error("an error of Jaeger is no error")
	}
}

// TestSpansAgree compares the spans of a batch with the waypoint's counter.
func TestSpansAgree(t *testing.T) {
	const waypoint = "appb-waypoint.default"
	tags := func(more ...string) map[string]any {
		all := map[string]any{"user_agent": traffic.Agent(run)}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = more[i+1]
		}
		return all
	}
	plain := span{id: "p", service: waypoint, tags: tags()}
	denied := span{id: "d", service: waypoint, tags: tags("http.status_code", "403")}
	slow := span{id: "s", service: waypoint, duration: 2 * time.Second, tags: tags("response_flags", "DI")}
	short := slow
	short.duration = 1900 * time.Millisecond
	others := span{id: "o", service: "gateway-istio.default", tags: tags("http.status_code", "403")}
	strange := span{id: "o", service: waypoint, tags: map[string]any{"user_agent": "curl", "http.status_code": "403"}}
	for name, tc := range map[string]struct {
		gather  probe.Gather
		spans   []span
		counted uint64
		want    probe.Verdict
		says    string
	}{
		"every request": {Traces(), []span{plain, denied}, 0, probe.Proven, "2 of 2 requests"},
		"one missing":   {Traces(), []span{plain}, 0, probe.Refuted, "1 of 2 requests"},
		"the gateway's and other callers' do not count": {
			Traces(), []span{plain, others, strange}, 0, probe.Refuted, "1 of 2 requests",
		},
		"403s":          {DeniedTraces(), []span{denied, denied}, 2, probe.Proven, "2 with 403; the waypoint counts 2"},
		"a 403 missing": {DeniedTraces(), []span{denied}, 2, probe.Refuted, "1 of 2 requests"},
		"counted less":  {DeniedTraces(), []span{denied, denied}, 1, probe.Refuted, "the waypoint counts 1"},
		"counted more":  {DeniedTraces(), []span{denied, denied}, 3, probe.Inconclusive, "other requests"},
		"none denied":   {DeniedTraces(), []span{plain, plain}, 0, probe.Inconclusive, "0 with 403"},
		"delays":        {DelayedTraces(), []span{plain, slow}, 1, probe.Proven, "1 with a delay"},
		"a short one":   {DelayedTraces(), []span{plain, short}, 1, probe.Refuted, "1 more are shorter than 1.995s"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // instead of the whole patience
			defer cancel()
			c := &cluster{pages: map[string]string{"/jaeger/api/traces": traces(tc.spans...)}}
			where := site(c, "waypoint")
			read := 0
			where.Counters = func(context.Context) (observe.Counters, error) {
				read++
				counter := observe.Counter{Value: 7, Known: true}
				if read > 1 {
					counter.Value += tc.counted
				}
				return observe.Counters{Denied: counter, Delayed: counter}, nil
			}
			judge, err := tc.gather(t.Context(), where)
			if err != nil {
				t.Fatal(err)
			}
			check := settled(ctx, judge, probe.Measurement{Sent: 2})
			says(t, name, check.Verdict, check.Text, nil, tc.want, tc.says)
		})
	}
}

// TestKiali reads answers in the form of Kiali 2.
func TestKiali(t *testing.T) {
	validations := func(errors, count int) string {
		return fmt.Sprintf(`[{"cluster":"Kubernetes","namespace":"default","errors":%d,"warnings":1,"objectCount":%d},
			{"cluster":"Kubernetes","namespace":"shop","errors":9,"warnings":0,"objectCount":9}]`, errors, count)
	}
	for name, tc := range map[string]struct {
		page string
		want probe.Verdict
		says string
	}{
		"valid":     {validations(0, 5), probe.Proven, "5 objects of namespace default: 0 errors, 1 warnings"},
		"one error": {validations(1, 5), probe.Refuted, "1 errors"},
		"nothing":   {validations(0, 0), probe.Refuted, "0 objects"},
		"another":   {`[]`, probe.Inconclusive, "nothing of namespace default"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		c := &cluster{pages: map[string]string{"/kiali/api/istio/validations": tc.page}}
		judge, _ := Validations()(ctx, site(c))
		check := settled(ctx, judge, probe.Measurement{})
		cancel()
		says(t, name, check.Verdict, check.Text, nil, tc.want, tc.says)
	}
	drawn := func(first, second string) string {
		return `{"timestamp":1,"duration":60,"graphType":"versionedApp","elements":{"nodes":[
			{"data":{"id":"n1","nodeType":"app","namespace":"default","workload":"appa","app":"appa","isAmbient":true}},
			{"data":{"id":"n2","nodeType":"app","namespace":"default","workload":"appb-waypoint","isWaypoint":true}},
			{"data":{"id":"n3","nodeType":"app","namespace":"default","workload":"appb","app":"appb"}}],
			"edges":[{"data":{"id":"e1","source":"n1","target":"n2"` + first + `,"traffic":{"protocol":"tcp"}}},
			{"data":{"id":"e2","source":"n2","target":"n3"` + second + `}}]}}`
	}
	const mutual = `,"isMTLS":"100"`
	for name, tc := range map[string]struct {
		page string
		on   []string
		want probe.Verdict
		says string
	}{
		"through the waypoint": {
			drawn(mutual, mutual),
			[]string{"waypoint"},
			probe.Proven,
			names.Waypoint + " to appb: drawn, 100 % with mutual TLS",
		},
		"plain text": {
			drawn(mutual, ""), []string{"waypoint"}, probe.Refuted, "to appb: drawn, 0 % with mutual TLS",
		},
		"without a waypoint": {drawn(mutual, mutual), nil, probe.Refuted, "appa to appb: not drawn"},
		"an empty page":      {`{"elements":{}}`, []string{"waypoint"}, probe.Refuted, "not drawn"},
	} {
		c := &cluster{pages: map[string]string{"/kiali/api/namespaces/graph": tc.page}}
		verdict, text, err := graph(t.Context(), site(c, tc.on...), probe.Measurement{})
		says(t, name, verdict, text, err, tc.want, tc.says)
		if !strings.Contains(c.asked[0], "waypoints=true") {
			t.Errorf("asked %s", c.asked[0])
		}
	}
}

// TestGrafana reads answers in the form of Grafana's HTTP API.
func TestGrafana(t *testing.T) {
	const proxied = "/api/datasources/proxy/uid/P1/api/v1/query"
	pages := func(expr, result string) map[string]string {
		return map[string]string{
			"/api/search": `[{"id":1,"uid":"z","title":"Istio Ztunnel Dashboard","type":"dash-db"}]`,
			"/api/dashboards/uid/z": `{"dashboard":{"title":"Istio Ztunnel Dashboard","panels":[{"type":"row","panels":[
				{"targets":[{"expr":"sum(up)"},{"expr":"` + expr + `"}]}]}]},"meta":{"slug":"x"}}`,
			"/api/datasources": `[{"uid":"L","type":"loki"},{"uid":"P1","type":"prometheus"}]`,
			proxied:            fmt.Sprintf(vector, result),
		}
	}
	const expr, data = "rate(istio_tcp_connections_opened_total[$__rate_interval])", `{"metric":{},"value":[1,"2"]}`
	for name, tc := range map[string]struct {
		titles       []string
		expr, result string
		want         probe.Verdict
		says         string
	}{
		"data": {
			nil, expr, data, probe.Proven, "1 of 1 dashboards load; of 1 queries for connections 1 return data",
		},
		"no data": {nil, expr, "", probe.Refuted, "no data: rate(istio_tcp_connections_opened_total[60s])"},
		"no such dashboard": {
			[]string{"Istio Mesh Dashboard"}, expr, data, probe.Refuted, "missing: Istio Mesh Dashboard",
		},
		"a variable of the user": {
			nil, "istio_tcp_connections_opened_total{a=$b}", data, probe.Refuted, "of 0 queries",
		},
	} {
		c := &cluster{pages: pages(tc.expr, tc.result)}
		titles := append([]string{"Istio Ztunnel Dashboard"}, tc.titles...)
		verdict, text, err := dashboards(t.Context(), observe.Grafana{Cluster: c}, titles)
		says(t, name, verdict, text, err, tc.want, tc.says)
	}
	c := &cluster{pages: pages(expr, data)}
	c.pages["/api/datasources"] = `[]`
	wanted := []string{"Istio Ztunnel Dashboard"}
	if _, _, err := dashboards(t.Context(), observe.Grafana{Cluster: c}, wanted); err == nil {
		t.Error("no error without a connection to Prometheus")
	}
}
