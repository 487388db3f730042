package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"ambientlab/internal/probe/traffic"
)

// Jaeger is the telemetry add-on of that name, seen through its pod.
type Jaeger struct{ Cluster traffic.Cluster }

// Span is one piece of the work that a trace tells of, such as what a proxy did with one request.
type Span struct {
	// ID is in hex. Parent is the span that caused this one, empty for the first one of a trace.
	ID, Parent string
	// Service is who reported it: <name of the proxy's workload>.<namespace>.
	Service  string
	Duration time.Duration
	Tags     map[string]string
}

// spanLimit is how many traces one question asks for; Jaeger's own default is 100.
const spanLimit = 2 * traffic.MaxCount

// Trace gives the spans of a trace, which are none until the first of them has arrived.
func (j Jaeger) Trace(ctx context.Context, id string) ([]Span, error) {
	return j.spans(ctx, url.Values{"traceID": {id}})
}

// Run gives the spans of a service for the requests of a run.
func (j Jaeger) Run(ctx context.Context, service, run string) ([]Span, error) {
	tags, err := json.Marshal(map[string]string{"user_agent": traffic.Agent(run)})
	if err != nil {
		return nil, err
	}
	found, err := j.spans(ctx, url.Values{
		"service": {service}, "tags": {string(tags)}, "lookback": {"1h"}, "limit": {fmt.Sprint(spanLimit)},
	})
	var own []Span
	for _, s := range found { // a trace that matches is given whole
		if s.Service == service && s.Tags["user_agent"] == traffic.Agent(run) {
			own = append(own, s)
		}
	}
	return own, err
}

func (j Jaeger) spans(ctx context.Context, query url.Values) ([]Span, error) {
	body, err := addon(ctx, j.Cluster, "app=jaeger", 16686, "/jaeger/api/traces?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("asking Jaeger: %w", err)
	}
	return readTraces(body)
}

// readTraces reads the answer of Jaeger's HTTP JSON API, https://www.jaegertracing.io/docs/latest/architecture/apis/.
// That a trace does not exist is an error in the answer, beside no data.
func readTraces(body []byte) ([]Span, error) {
	var answer struct {
		Data []struct {
			Spans []struct {
				SpanID, ProcessID string
				References        []struct{ SpanID string }
				Duration          int64 // in microseconds
				Tags              []struct {
					Key   string
					Value any
				}
			}
			Processes map[string]struct{ ServiceName string }
		}
		Errors []struct {
			Code int
			Msg  string
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("reading Jaeger's answer: %w", err)
	}
	for _, e := range answer.Errors {
		if e.Msg != "trace not found" {
			return nil, fmt.Errorf("Jaeger answers %d %s", e.Code, e.Msg)
		}
	}
	var spans []Span
	for _, trace := range answer.Data {
		for _, s := range trace.Spans {
			span := Span{
				ID: s.SpanID, Service: trace.Processes[s.ProcessID].ServiceName, Tags: map[string]string{},
				Duration: time.Duration(s.Duration) * time.Microsecond,
			}
			if len(s.References) > 0 {
				span.Parent = s.References[0].SpanID
			}
			for _, tag := range s.Tags {
				span.Tags[tag.Key] = fmt.Sprint(tag.Value)
			}
			spans = append(spans, span)
		}
	}
	return spans, nil
}
