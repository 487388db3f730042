// Package addons judges what Istio's telemetry add-ons show of a batch of requests: whether Prometheus has what the
// proxies count, Jaeger a trace of each request, Kiali the connections, and Grafana dashboards whose queries return
// data.
package addons

import (
	"context"
	"time"

	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
)

// How long an add-on may take to have what has just happened. Prometheus reads the proxies once in an interval; a
// second interval and a little are for a busy machine. Envoy sends its spans every five seconds
// (tracing.opentelemetry.flush_interval_ms). Kiali and Grafana ask Prometheus.
const (
	scrapeLimit   = 2*observe.ScrapeInterval + 10*time.Second
	tracePatience = 25 * time.Second
	askEvery      = time.Second
)

// ask asks an add-on once. An error means that it does not answer, or not what it should.
type ask func(context.Context) (probe.Verdict, string, error)

// eventually asks until an answer is proven, for as long as patience lasts; it gives the latest answer.
func eventually(name string, patience time.Duration, ask ask) probe.Later {
	return func(ctx context.Context) []probe.Check {
		check := probe.Check{Name: name, Verdict: probe.Inconclusive}
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		for {
			verdict, text, err := ask(ctx)
			switch {
			case err == nil:
				check.Verdict, check.Text = verdict, text
			case ctx.Err() == nil:
				check.Verdict, check.Text = probe.Inconclusive, err.Error()
			}
			if check.Verdict == probe.Proven {
				return []probe.Check{check}
			}
			select {
			case <-time.After(askEvery):
			case <-ctx.Done():
				return []probe.Check{check}
			}
		}
	}
}

// unknown is what is said where the counters after the requests cannot be read.
func unknown(name string, err error) ([]probe.Check, probe.Later) {
	return []probe.Check{{Name: name, Verdict: probe.Inconclusive, Text: err.Error()}}, nil
}

// afterwards makes a Gather of a question that needs nothing from before the requests.
func afterwards(
	name string, patience time.Duration,
	question func(context.Context, probe.Site, probe.Measurement) (probe.Verdict, string, error),
) probe.Gather {
	return func(_ context.Context, site probe.Site) (probe.Judge, error) {
		return func(_ context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
			return nil, eventually(name, patience, func(ctx context.Context) (probe.Verdict, string, error) {
				return question(ctx, site, m)
			})
		}, nil
	}
}
