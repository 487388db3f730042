package addons

import (
	"context"
	"fmt"
	"strings"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
)

const prometheus = "Prometheus"

// metalLB is the namespace of MetalLB.
const metalLB = "metallb-system"

// TargetsUp wants every proxy's pod read by Prometheus, and no pod of MetalLB annotated that cannot be read. Other pods
// of the lab may be simulated, such as those of istio-cni without Docker.
func TargetsUp() probe.Gather {
	return afterwards(prometheus, scrapeLimit, targetsUp)
}

func targetsUp(ctx context.Context, site probe.Site, _ probe.Measurement) (probe.Verdict, string, error) {
	up, err := observe.Prometheus{Cluster: site.Cluster}.Query(ctx, `up{job="kubernetes-pods"}`)
	if err != nil {
		return "", "", err
	}
	state := map[string]float64{}
	var good, bad []string
	for _, s := range up {
		state[s.Labels["pod"]] = s.Value
		if s.Value != 1 && s.Labels["namespace"] == metalLB {
			bad = append(bad, s.Labels["pod"]+" (it is annotated for that, and does not answer)")
		}
	}
	for _, of := range proxiesOf(site) {
		pods, err := site.Cluster.Pods(ctx, of.namespace, of.selector)
		if err != nil {
			return "", "", err
		}
		for _, pod := range pods {
			if state[pod.Name] == 1 {
				good = append(good, pod.Name)
			} else {
				bad = append(bad, pod.Name)
			}
		}
	}
	switch {
	case len(bad) > 0:
		return probe.Refuted, "not read: " + strings.Join(bad, ", "), nil
	case len(good) == 0:
		return probe.Refuted, "there is no proxy to read", nil
	}
	return probe.Proven, "read: " + strings.Join(good, ", "), nil
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

// Edges wants Prometheus to have as many connections as the node proxies count, each with the right identity and with
// mutual TLS.
func Edges() probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		proxies := observe.Ztunnels(site.Cluster)
		before, err := proxies.Connections(ctx)
		return func(ctx context.Context, _ probe.Measurement) ([]probe.Check, probe.Later) {
			after, err := proxies.Connections(ctx)
			if err != nil {
				return unknown("node proxies", err)
			}
			return nil, func(ctx context.Context) (checks []probe.Check) {
				for _, e := range edgesOf(site) {
					check := eventually(prometheus, scrapeLimit, e.agrees(site))(ctx)[0]
					if after.Sum(observe.Opened, e.labels()) == before.Sum(observe.Opened, e.labels()) {
						check.Text += "; these requests used connections that were open before"
					}
					checks = append(checks, check)
				}
				return checks
			}
		}, err
	}
}

// agrees asks whether Prometheus has what the node proxies count now.
func (e edge) agrees(site probe.Site) ask {
	return func(ctx context.Context) (probe.Verdict, string, error) {
		now, err := observe.Ztunnels(site.Cluster).Connections(ctx)
		if err != nil {
			return "", "", err
		}
		return e.in(ctx, site, now.Sum(observe.Opened, e.labels()))
	}
}

// in tells whether Prometheus has at least as many connections of an edge as were counted, all of them as they must be.
func (e edge) in(ctx context.Context, site probe.Site, counted int) (probe.Verdict, string, error) {
	found, err := observe.Prometheus{Cluster: site.Cluster}.Query(ctx, fmt.Sprintf(
		`sum by (source_principal, connection_security_policy) (%s{reporter=%q,source_workload=%q,`+
			`destination_workload=%q})`, observe.Opened, e.reporter, e.from, e.to))
	if err != nil {
		return "", "", err
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
	switch {
	case len(others) > 0:
		return probe.Refuted, text + "; others: " + strings.Join(others, ", "), nil
	case counted == 0 || good < counted:
		return probe.Refuted, text, nil
	}
	return probe.Proven, text, nil
}

// Denied and Delayed want Prometheus to have the value of one of the waypoint's own counters, which must have moved.
func Denied() probe.Gather {
	return agrees(`envoy_http_rbac{authz_enforce_result="denied",%s}`,
		func(c observe.Counters) observe.Counter { return c.Denied })
}

// Delayed is as [Denied], for delays.
func Delayed() probe.Gather {
	return agrees(`envoy_http_fault_delays_injected{%s}`,
		func(c observe.Counters) observe.Counter { return c.Delayed })
}

func agrees(query string, counter func(observe.Counters) observe.Counter) probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		before, err := site.Counters(ctx)
		return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
			after, err := site.Counters(ctx)
			if err != nil {
				return unknown(prometheus, err)
			}
			moved := counter(after).Since(counter(before)).Value
			return nil, eventually(prometheus, scrapeLimit, func(ctx context.Context) (probe.Verdict, string, error) {
				now, err := site.Counters(ctx)
				if err != nil {
					return "", "", err
				}
				has, err := observe.Prometheus{Cluster: site.Cluster}.Sum(ctx, fmt.Sprintf("sum("+query+")",
					fmt.Sprintf("gateway_networking_k8s_io_gateway_name=%q", names.Waypoint)))
				if err != nil {
					return "", "", err
				}
				own := counter(now)
				text := fmt.Sprintf("Prometheus has %g, the waypoint itself counts %d; %d requests moved it by %d", has,
					own.Value, m.Sent, moved)
				if moved == 0 { // such as where few requests are delayed
					return probe.Inconclusive, text, nil
				}
				return met(uint64(has) == own.Value), text, nil
			})
		}, err
	}
}

// Requests wants Prometheus to have every request of a batch in Istio's own metric, as the waypoint reports it with the
// identities of both ends.
func Requests() probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		query := fmt.Sprintf(`sum(istio_requests_total{reporter="waypoint",source_workload=%q,`+
			`destination_service_name=%q,response_code="200"})`, names.AppA, names.AppB)
		before, err := observe.Prometheus{Cluster: site.Cluster}.Sum(ctx, query)
		return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
			// Not later: the requests of other claims would count, too.
			return eventually(prometheus, scrapeLimit, func(ctx context.Context) (probe.Verdict, string, error) {
				after, err := observe.Prometheus{Cluster: site.Cluster}.Sum(ctx, query)
				if err != nil {
					return "", "", err
				}
				// What was counted before and read only now can add to it.
				moved := int(after - before)
				return met(moved >= m.Sent), fmt.Sprintf("istio_requests_total from %s to %s, reported by the "+
					"waypoint, moved by %d; %d requests were sent", names.AppA, names.AppB, moved, m.Sent), nil
			})(ctx), nil
		}, err
	}
}

func met(so bool) probe.Verdict {
	if so {
		return probe.Proven
	}
	return probe.Refuted
}
