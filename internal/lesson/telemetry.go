package lesson

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
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
			if config.HasAddon(upstream.Prometheus) {
				return nil
			}
			return problem.New(problem.ObjectMissing, nil, "sm:telemetry judges what Prometheus shows, and Prometheus "+
				"is not installed; nothing was changed").With("Run `SM_ADDONS=prometheus mage sm:install`, then " +
				"`mage sm:telemetry`.")
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
func TelemetryNotes(addons []string, substitutes session.Substitutes) []string {
	var notes []string
	if substitutes.Proxy() != "" {
		notes = append(notes, "no proxy counts istio_requests_total, since the gateway's and the waypoint's Envoy "+
			"lacks "+
			"Istio's extensions: what is shown of requests comes from Envoy's own counters")
	}
	if substitutes.Prometheus() != "" && slices.Contains(addons, upstream.Prometheus) {
		notes = append(notes, "this Prometheus has no web pages: it answers queries")
	}
	if substitutes.Jaeger() != "" && slices.Contains(addons, upstream.Jaeger) {
		notes = append(notes, "this Jaeger has no web pages: it answers queries")
	}
	missing := slices.DeleteFunc(upstream.Addons(), func(name string) bool { return slices.Contains(addons, name) })
	if len(missing) > 0 {
		notes = append(notes, "not installed, so nothing is claimed of it: "+strings.Join(missing, ", "))
	}
	for _, name := range []string{upstream.Grafana, upstream.Kiali} {
		if slices.Contains(addons, name) {
			notes = append(notes, "nothing is claimed of "+name+": its pages are for you to look at, see sm:dashboard")
		}
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
	on := func(further ...func(probe.Lessons) bool) func(probe.Lessons) bool {
		return probe.All(append(further, probe.On("telemetry"))...)
	}
	const lesson = "telemetry"
	return []probe.Claim{
		{
			ID: "prometheus-targets", Lesson: lesson,
			Title: "Prometheus reads the counters of every node proxy, of the gateway and of the waypoint",
			Learn: "Annotations on the pods tell Prometheus where their metrics are.",
			When:  on(probe.Admitted(probe.Appa)),
			Shot:  shot(http.MethodGet, probe.OtherPath, probe.Few, http.StatusOK, targetsUp),
		},
		{
			ID: "prometheus-edges", Lesson: lesson,
			Title: "Prometheus has every connection on the way from appa to appb, with identities and mutual TLS",
			Learn: "The node proxies count connections at both ends, by workload, identity and security policy. " +
				"Between gateway and waypoint no node proxy is involved, so there is no such series.",
			When: on(probe.Admitted(probe.Appa)),
			Shot: shot(http.MethodGet, probe.OtherPath, probe.Several, http.StatusOK, edges),
		},
		{
			ID: "prometheus-denied", Lesson: lesson,
			Title: "Prometheus has as many denied requests as the waypoint counts",
			Learn: "The waypoint's RBAC filter counts what it denies.",
			When:  on(probe.On("waypoint"), probe.On("authz")),
			Shot: shot(http.MethodPost, "/post", probe.Several, http.StatusForbidden, agrees(
				`envoy_http_rbac{authz_enforce_result="denied",%s}`,
				func(c observe.Counters) observe.Counter { return c.Denied })),
		},
		{
			ID: "prometheus-delayed", Lesson: lesson,
			Title: "Prometheus has as many delays as the waypoint counts",
			Learn: "The waypoint's fault filter counts the delays that it puts in.",
			When:  on(probe.On("waypoint"), probe.On("fault"), probe.Admitted(probe.Appa)),
			Shot: shot(http.MethodGet, probe.FaultPath, probe.Several, probe.OwnStatus, agrees(
				`envoy_http_fault_delays_injected{%s}`,
				func(c observe.Counters) observe.Counter { return c.Delayed })),
		},
	}
}

// scrapePatience is how long Prometheus may take to have what the proxies have counted: two intervals, and a little.
const scrapePatience = 2*observe.ScrapeInterval + 10*time.Second

// eventually asks until an answer is met, for as long as Prometheus may take; it gives the latest answer.
func eventually(ctx context.Context, ask func(context.Context) (met bool, text string, err error)) probe.Check {
	check := probe.Check{Name: "Prometheus", Verdict: probe.Inconclusive}
	ctx, cancel := context.WithTimeout(ctx, scrapePatience)
	defer cancel()
	for {
		met, text, err := ask(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			check.Text = err.Error()
		case err == nil && met:
			check.Verdict, check.Text = probe.Proven, text
			return check
		case err == nil:
			check.Verdict, check.Text = probe.Refuted, text
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return check
		}
	}
}

// targetsUp wants every proxy's pod read by Prometheus.
func targetsUp(_ context.Context, site probe.Site) (probe.Judge, error) {
	return func(ctx context.Context, _ probe.Measurement) []probe.Check {
		return []probe.Check{eventually(ctx, func(ctx context.Context) (bool, string, error) {
			up, err := observe.Prometheus{Cluster: site.Cluster}.Query(ctx, `up{job="kubernetes-pods"}`)
			if err != nil {
				return false, "", err
			}
			state := map[string]float64{}
			for _, s := range up {
				state[s.Labels["pod"]] = s.Value
			}
			var good, bad []string
			for _, of := range proxiesOf(site) {
				pods, err := site.Cluster.Pods(ctx, of.namespace, of.selector)
				if err != nil {
					return false, "", err
				}
				for _, pod := range pods {
					if state[pod.Name] == 1 {
						good = append(good, pod.Name)
					} else {
						bad = append(bad, pod.Name)
					}
				}
			}
			if len(bad) > 0 {
				return false, "not read: " + strings.Join(bad, ", "), nil
			}
			return len(good) > 0, "read: " + strings.Join(good, ", "), nil
		})}
	}, nil
}

type podsOf struct{ namespace, selector string }

// proxiesOf lists where the proxies' pods are.
func proxiesOf(site probe.Site) []podsOf {
	const gateway = mesh.GatewayLabel + "="
	all := []podsOf{{names.Istio, "app=ztunnel"}, {site.Namespace, gateway + names.Gateway}}
	if site.Lessons.On("waypoint") {
		all = append(all, podsOf{site.Namespace, gateway + names.Waypoint})
	}
	return all
}

// edge is one kind of connection, as a node proxy at one of its ends counts it.
type edge struct{ reporter, from, to, identity string }

func (e edge) String() string { return e.from + " to " + e.to + ", counted at the " + e.reporter }

func (e edge) labels() map[string]string {
	return map[string]string{"reporter": e.reporter, "source_workload": e.from, "destination_workload": e.to}
}

// edgesOf lists the connections on the way from appa to appb.
func edgesOf(site probe.Site) []edge {
	appa := "spiffe://" + site.Principal(names.AppA)
	if site.Lessons.On("waypoint") {
		return []edge{
			{"source", names.AppA, names.Waypoint, appa},
			{"destination", names.Waypoint, names.AppB, "spiffe://" + site.Principal(names.Waypoint)},
		}
	}
	return []edge{{"source", names.AppA, names.AppB, appa}, {"destination", names.AppA, names.AppB, appa}}
}

// edges wants Prometheus to have as many connections as the node proxies count, each with the right identity and with
// mutual TLS.
func edges(ctx context.Context, site probe.Site) (probe.Judge, error) {
	proxies := observe.Ztunnels(site.Cluster)
	before, err := proxies.Connections(ctx)
	return func(ctx context.Context, _ probe.Measurement) []probe.Check {
		after, err := proxies.Connections(ctx)
		if err != nil {
			return []probe.Check{{Name: "node proxies", Verdict: probe.Inconclusive, Text: err.Error()}}
		}
		var checks []probe.Check
		for _, e := range edgesOf(site) {
			counted := after.Sum(observe.Opened, e.labels())
			check := eventually(ctx, func(ctx context.Context) (bool, string, error) {
				return e.in(ctx, site, counted)
			})
			if moved := counted - before.Sum(observe.Opened, e.labels()); moved == 0 {
				check.Text += "; none of them is of these requests, which used connections that were open before"
			}
			checks = append(checks, check)
		}
		return checks
	}, err
}

// in tells whether Prometheus has at least as many connections of an edge as were counted, all of them as they must be.
func (e edge) in(ctx context.Context, site probe.Site, counted int) (bool, string, error) {
	found, err := observe.Prometheus{Cluster: site.Cluster}.Query(ctx, fmt.Sprintf(
		`sum by (source_principal, connection_security_policy) (%s{reporter=%q,source_workload=%q,`+
			`destination_workload=%q})`, observe.Opened, e.reporter, e.from, e.to))
	if err != nil {
		return false, "", err
	}
	good, others := 0, []string{}
	for _, s := range found {
		identity, policy := s.Labels["source_principal"], s.Labels["connection_security_policy"]
		if identity == e.identity && policy == "mutual_tls" {
			good += int(s.Value)
		} else if s.Value > 0 {
			others = append(others, fmt.Sprintf("%g of %s with %s", s.Value, identity, policy))
		}
	}
	text := fmt.Sprintf("%s: %d connections of %s with mutual TLS, the node proxies count %d", e, good, e.identity,
		counted)
	if len(others) > 0 {
		return false, text + "; others: " + strings.Join(others, ", "), nil
	}
	return counted > 0 && good >= counted, text, nil
}

// agrees wants Prometheus to have the value of one of the waypoint's own counters, which must have moved.
func agrees(query string, counter func(observe.Counters) observe.Counter) probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		before, err := site.Counters(ctx)
		return func(ctx context.Context, m probe.Measurement) []probe.Check {
			return []probe.Check{eventually(ctx, func(ctx context.Context) (bool, string, error) {
				after, err := site.Counters(ctx)
				if err != nil {
					return false, "", err
				}
				has, err := observe.Prometheus{Cluster: site.Cluster}.Sum(ctx, fmt.Sprintf("sum("+query+")",
					fmt.Sprintf("gateway_networking_k8s_io_gateway_name=%q", names.Waypoint)))
				if err != nil {
					return false, "", err
				}
				own := counter(after)
				moved := own.Since(counter(before)).Value
				return own.Known && moved > 0 && uint64(has) == own.Value, fmt.Sprintf(
					"Prometheus has %g, the waypoint itself counts %d, %d of them since the first of %d requests", has,
					own.Value, moved, m.Sent), nil
			})}
		}, err
	}
}
