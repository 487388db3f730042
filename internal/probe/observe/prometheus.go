package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe/traffic"
)

// Prometheus is the telemetry add-on of that name, seen through its pod.
type Prometheus struct{ Cluster traffic.Cluster }

// ScrapeInterval is how often the add-on reads its targets (istio.io/istio, samples/addons/prometheus.yaml).
const ScrapeInterval = 15 * time.Second

// Sample is one series of a query's answer, with its value.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// Query evaluates a query now.
func (p Prometheus) Query(ctx context.Context, query string) ([]Sample, error) {
	body, err := addon(ctx, p.Cluster, "app.kubernetes.io/name=prometheus", 9090,
		"/api/v1/query?query="+url.QueryEscape(query))
	if err != nil {
		return nil, fmt.Errorf("asking Prometheus: %w", err)
	}
	return readVector(body)
}

// Sum evaluates a query that gives one number; an empty answer is 0.
func (p Prometheus) Sum(ctx context.Context, query string) (float64, error) {
	found, err := p.Query(ctx, query)
	sum := 0.0
	for _, s := range found {
		sum += s.Value
	}
	return sum, err
}

// readVector reads the answer to an instant query, https://prometheus.io/docs/prometheus/latest/querying/api/.
func readVector(body []byte) ([]Sample, error) {
	var answer struct {
		Status, Error string
		Data          struct {
			ResultType string
			Result     []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("reading Prometheus' answer: %w", err)
	}
	if answer.Status != "success" || answer.Data.ResultType != "vector" {
		return nil, fmt.Errorf("Prometheus answers %s %s %s", answer.Status, answer.Data.ResultType, answer.Error)
	}
	var samples []Sample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("reading Prometheus' answer: %w", err)
		}
		samples = append(samples, Sample{r.Metric, value})
	}
	return samples, nil
}

// addon reads a page of the first ready pod of an add-on.
func addon(ctx context.Context, cluster traffic.Cluster, selector string, port int, path string) ([]byte, error) {
	pods, err := cluster.Pods(ctx, names.Istio, selector)
	if err != nil {
		return nil, fmt.Errorf("listing the pods %s: %w", selector, err)
	}
	for _, pod := range pods {
		if pod.Ready {
			return get(ctx, cluster, names.Istio, pod.Name, port, path)
		}
	}
	return nil, fmt.Errorf("of %d pods %s none is ready", len(pods), selector)
}
