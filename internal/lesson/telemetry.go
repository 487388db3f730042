package lesson

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/addons"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
)

// Telemetry is sm:telemetry: what the telemetry add-ons show of the other lessons. It applies nothing but its record;
// while it is on, sm:verify judges what the installed add-ons show.
func Telemetry() Lesson {
	return Lesson{
		Name: "telemetry", Needs: []string{"apps"}, Extra: true, Parameters: struct{}{},
		On: "sm:verify judges what the telemetry add-ons show", Off: "the telemetry add-ons are not judged",
		Claims: telemetryClaims(), Data: noData,
		Plan: func(l Lesson, s *session.Session) engine.Plan {
			return engine.Plan{Name: l.Name, Title: "What the telemetry add-ons show", Steps: []engine.Step{
				s.SetStep(l.Name, "Record of the lesson", nil,
					func(context.Context) ([]*unstructured.Unstructured, error) {
						record, err := session.LessonRecord(l.Name, l.Parameters)
						return []*unstructured.Unstructured{record}, err
					}),
			}}
		},
		Possible: func(config session.Config) *problem.Problem {
			if len(config.Addons) > 0 {
				return nil
			}
			return problem.New(problem.ObjectMissing, nil, "sm:telemetry judges what the telemetry add-ons show, and "+
				"none is installed; nothing was changed").With("Run `SM_ADDONS=prometheus,jaeger mage sm:install`, " +
				"then `mage sm:telemetry`.")
		},
		Show: func(ctx context.Context, s *session.Session) error {
			substitutes, err := s.Substitutes(ctx)
			if err != nil {
				return err
			}
			for _, note := range TelemetryNotes(s.Config.Addons, substitutes) {
				s.Tell("%s", note)
			}
			return nil
		},
		Next: typed("mage sm:verify, or mage sm:dashboard to look"), NextOff: offHint("telemetry"),
	}
}

// TelemetryNotes say what the installed add-ons cannot show, and which are not installed.
func TelemetryNotes(installed []string, substitutes session.Substitutes) []string {
	var notes []string
	if substitutes.Proxy() != "" {
		notes = append(notes, "no proxy counts istio_requests_total, since the gateway's and the waypoint's Envoy "+
			"lacks Istio's extensions: what is shown of requests comes from Envoy's own counters")
	}
	if substitutes.Prometheus() != "" && slices.Contains(installed, upstream.Prometheus) {
		notes = append(notes, "this Prometheus has no web pages: it answers queries")
	}
	if substitutes.Jaeger() != "" && slices.Contains(installed, upstream.Jaeger) {
		notes = append(notes, "this Jaeger has no web pages: it answers queries")
	}
	missing := slices.DeleteFunc(upstream.Addons(), func(name string) bool { return slices.Contains(installed, name) })
	if len(missing) > 0 {
		notes = append(notes, "not installed, so nothing is claimed of it: "+strings.Join(missing, ", "))
	}
	return notes
}

// telemetryClaims are those of lesson telemetry.
func telemetryClaims() []probe.Claim {
	shot := func(method, path string, count int, status int, gather probe.Gather) probe.Shot {
		expect := probe.Expect{Status: status}
		if status == probe.OwnStatus { // which the waypoint's log tells
			expect.Route = probe.Through
		}
		return probe.Shot{
			Caller: probe.Appa, Method: method, Path: path, Count: count, Expect: expect, Gather: gather,
		}
	}
	get := func(count int, gather probe.Gather) probe.Shot {
		return shot(http.MethodGet, probe.OtherPath, count, http.StatusOK, gather)
	}
	denied := func(gather probe.Gather) probe.Shot {
		return shot(http.MethodPost, "/post", probe.Several, http.StatusForbidden, gather)
	}
	delayed := func(gather probe.Gather) probe.Shot {
		return shot(http.MethodGet, probe.FaultPath, probe.Several, probe.OwnStatus, gather)
	}
	traced := get(probe.Few, addons.Trace())
	traced.Caller, traced.Traced = probe.Gateway, true
	on := func(further ...func(probe.Lessons) bool) func(probe.Lessons) bool {
		return probe.All(append(further, probe.On("telemetry"))...)
	}
	appaOn := func(lessons ...string) func(probe.Lessons) bool {
		further := []func(probe.Lessons) bool{probe.Admitted(probe.Appa)}
		for _, l := range lessons {
			further = append(further, probe.On(l))
		}
		return on(further...)
	}
	has := func(addon string) func(probe.Installed) bool {
		return func(i probe.Installed) bool { return slices.Contains(i.Addons, addon) }
	}
	const lesson = "telemetry"
	scraped := []probe.Cause{{Find: found((*mesh.Objects).ScrapeTrouble)}}
	tracing := []probe.Cause{{Find: found((*mesh.Objects).TracingTrouble)}}
	return []probe.Claim{
		{
			ID: "prometheus-targets", Lesson: lesson,
			Title: "Prometheus reads the counters of every node proxy, of the gateway and of the waypoint",
			Learn: "Annotations on the pods tell Prometheus where their metrics are.",
			When:  appaOn(), Where: has(upstream.Prometheus),
			Shot: get(probe.Few, addons.TargetsUp()), Causes: scraped,
		},
		{
			ID: "prometheus-edges", Lesson: lesson,
			Title: "Prometheus has every connection on the way from appa to appb, with identities and mutual TLS",
			Learn: "The node proxies count connections at both ends, by workload, identity and security policy. " +
				"Between gateway and waypoint no node proxy is involved, so there is no such series.",
			When: appaOn(), Where: has(upstream.Prometheus),
			Shot: get(probe.Several, addons.Edges()), Causes: scraped,
		},
		{
			ID: "prometheus-denied", Lesson: lesson,
			Title: "Prometheus has as many denied requests as the waypoint counts",
			Learn: "The waypoint's RBAC filter counts what it denies.",
			When:  on(probe.On("waypoint"), probe.On("authz")), Where: has(upstream.Prometheus),
			Shot: denied(addons.Denied()), Causes: scraped,
		},
		{
			ID: "prometheus-delayed", Lesson: lesson,
			Title: "Prometheus has as many delays as the waypoint counts",
			Learn: "The waypoint's fault filter counts the delays that it puts in.",
			When:  appaOn("waypoint", "fault"), Where: has(upstream.Prometheus),
			Shot: delayed(addons.Delayed()), Causes: scraped,
		},
		{
			ID: "prometheus-requests", Lesson: lesson,
			Title: "Prometheus has every request of appa in istio_requests_total",
			Learn: "Istio's own Envoy has an extension that counts requests with the workloads at both ends.",
			When:  appaOn("waypoint"),
			Where: func(i probe.Installed) bool { return has(upstream.Prometheus)(i) && i.IstioProxy },
			Shot:  get(probe.Several, addons.Requests()), Causes: scraped,
		},
		{
			ID: "jaeger-trace", Lesson: lesson,
			Title: "Jaeger has the trace that a caller began, with a span of the gateway and one of the waypoint",
			Learn: "Envoy continues the trace of the header traceparent, and passes the header on. A node proxy sees " +
				"no headers, so it has no span.",
			When:  on(probe.On("waypoint"), probe.Admitted(probe.Gateway)),
			Where: has(upstream.Jaeger), Shot: traced, Causes: tracing,
		},
		{
			ID: "jaeger-requests", Lesson: lesson,
			Title: "Jaeger has a span of the waypoint for every request of appa",
			Learn: "The mesh's Telemetry resource asks for traces of all requests; without a number it is one of a " +
				"hundred.",
			When: appaOn("waypoint"), Where: has(upstream.Jaeger),
			Shot: get(probe.Several, addons.Traces()), Causes: tracing,
		},
		{
			ID: "jaeger-denied", Lesson: lesson,
			Title: "Jaeger has as many spans with a 403 as the waypoint counts denied requests",
			Learn: "A request that the waypoint answers itself has a span like any other.",
			When:  on(probe.On("waypoint"), probe.On("authz")), Where: has(upstream.Jaeger),
			Shot: denied(addons.DeniedTraces()), Causes: tracing,
		},
		{
			ID: "jaeger-delayed", Lesson: lesson,
			Title: "Jaeger has as many delayed spans as the waypoint counts delays, each as long as the delay",
			Learn: "Envoy marks the span of a delayed request with the response flag DI, as in its access log.",
			When:  appaOn("waypoint", "fault"), Where: has(upstream.Jaeger),
			Shot: delayed(addons.DelayedTraces()), Causes: tracing,
		},
		{
			ID: "kiali-valid", Lesson: lesson,
			Title: "Kiali finds no error in the objects of the applications' namespace",
			Learn: "Kiali compares objects with each other, such as a route with the Services that it names.",
			When:  appaOn(), Where: has(upstream.Kiali), Shot: get(probe.Few, addons.Validations()),
		},
		{
			ID: "kiali-graph", Lesson: lesson,
			Title: "Kiali draws the way from appa to appb, with mutual TLS",
			Learn: "Kiali draws what Prometheus has of the node proxies' counters.",
			When:  appaOn(), Where: has(upstream.Kiali), Shot: get(probe.Several, addons.Graph()), Causes: scraped,
		},
		{
			ID: "grafana-dashboards", Lesson: lesson,
			Title: "Grafana loads Istio's dashboards, and their queries for connections return data",
			Learn: "A dashboard holds queries; Grafana sends them to Prometheus.",
			When:  appaOn(), Where: has(upstream.Grafana),
			Shot: get(probe.Several, addons.Dashboards(upstream.Dashboards()...)), Causes: scraped,
		},
	}
}

// found makes the Find of a cause that depends on the objects alone.
func found(trouble func(*mesh.Objects) *problem.Problem) func(*mesh.Objects, probe.Lessons) *problem.Problem {
	return func(o *mesh.Objects, _ probe.Lessons) *problem.Problem { return trouble(o) }
}
