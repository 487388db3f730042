package addons

import (
	"context"
	"fmt"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

const jaeger = "Jaeger"

// Services under which the two proxies report their spans.
func gatewayService(site probe.Site) string  { return names.GatewayAccount + "." + site.Namespace }
func waypointService(site probe.Site) string { return names.Waypoint + "." + site.Namespace }

// Trace wants the trace that the caller of Traced requests has begun: for each request a span of the gateway whose
// parent is the caller's span, and under it one of the waypoint.
func Trace() probe.Gather {
	return afterwards(jaeger, tracePatience, trace)
}

func trace(ctx context.Context, site probe.Site, m probe.Measurement) (probe.Verdict, string, error) {
	id, caller := traffic.TraceID(site.Run), traffic.SpanID(site.Run)
	spans, err := observe.Jaeger{Cluster: site.Cluster}.Trace(ctx, id)
	if err != nil {
		return "", "", err
	}
	parent := map[string]observe.Span{}
	for _, s := range spans {
		parent[s.ID] = s
	}
	under := map[string]bool{} // the gateway's spans with one of the waypoint under them
	gateway := 0
	for _, s := range spans {
		if s.Service == gatewayService(site) && s.Parent == caller {
			gateway++
		}
		if s.Service != waypointService(site) {
			continue
		}
		// The number of steps is limited: nothing says that what an add-on answers is a tree.
		for range spans {
			if s.Service == gatewayService(site) && s.Parent == caller {
				under[s.ID] = true
				break
			}
			s = parent[s.Parent]
		}
	}
	return met(gateway == m.Sent && len(under) == m.Sent), fmt.Sprintf("trace %s, which the caller has begun, has %d "+
		"spans: %d of the gateway right under the caller's, %d of these with one of the waypoint under them; %d "+
		"requests were sent", id, len(spans), gateway, len(under), m.Sent), nil
}

// Traces wants a span of the waypoint for every request of a batch.
func Traces() probe.Gather {
	return afterwards(jaeger, tracePatience,
		func(ctx context.Context, site probe.Site, m probe.Measurement) (probe.Verdict, string, error) {
			spans, err := observe.Jaeger{Cluster: site.Cluster}.Run(ctx, waypointService(site), site.Run)
			if err != nil {
				return "", "", err
			}
			return met(len(spans) == m.Sent), fmt.Sprintf("%d of %d requests have a span of the waypoint", len(spans),
				m.Sent), nil
		})
}

// DeniedTraces wants as many spans with a 403 as the waypoint counts denied requests.
func DeniedTraces() probe.Gather {
	return spansAgree("403", func(s observe.Span) bool { return s.Tags["http.status_code"] == "403" }, 0,
		func(c observe.Counters) observe.Counter { return c.Denied })
}

// early is how much shorter than the delay a span may be: Envoy's timer counts milliseconds from the beginning of its
// loop, a span has microseconds.
const early = 5 * time.Millisecond

// DelayedTraces wants as many spans that are marked as delayed as the waypoint counts delays, none of them shorter than
// the delay.
func DelayedTraces() probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		return spansAgree("a delay", func(s observe.Span) bool { return s.Tags["response_flags"] == "DI" },
			site.Lessons.FaultOrDefault().Delay-early,
			func(c observe.Counters) observe.Counter { return c.Delayed })(ctx, site)
	}
}

// spansAgree compares the waypoint's spans of a batch that are of a kind with one of the waypoint's counters.
func spansAgree(
	what string, is func(observe.Span) bool, least time.Duration, counter func(observe.Counters) observe.Counter,
) probe.Gather {
	return func(ctx context.Context, site probe.Site) (probe.Judge, error) {
		before, err := site.Counters(ctx)
		return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
			after, err := site.Counters(ctx)
			if err != nil {
				return unknown(jaeger, err)
			}
			counted := int(counter(after).Since(counter(before)).Value)
			return nil, eventually(jaeger, tracePatience, func(ctx context.Context) (probe.Verdict, string, error) {
				spans, err := observe.Jaeger{Cluster: site.Cluster}.Run(ctx, waypointService(site), site.Run)
				if err != nil {
					return "", "", err
				}
				found, short := 0, 0
				for _, s := range spans {
					switch {
					case !is(s):
					case s.Duration < least:
						short++
					default:
						found++
					}
				}
				text := fmt.Sprintf("%d of %d requests have a span of the waypoint, %d with %s; the waypoint counts %d",
					len(spans), m.Sent, found, what, counted)
				switch {
				case short > 0:
					return probe.Refuted, fmt.Sprintf("%s; %d more are shorter than %s", text, short, least), nil
				case len(spans) == m.Sent && found < counted:
					return probe.Inconclusive, text + ": other requests were counted meanwhile", nil
				case len(spans) == m.Sent && found == 0: // such as where few requests are delayed
					return probe.Inconclusive, text, nil
				}
				return met(len(spans) == m.Sent && found == counted), text, nil
			})
		}, err
	}
}
