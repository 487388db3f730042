package observe

import (
	"bytes"
	"context"
	"fmt"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe/traffic"
)

// NodeProxies are the ztunnels of all nodes, or what runs in their place, seen through their pods.
type NodeProxies struct {
	Cluster traffic.Cluster
	// Namespace and Selector find the pods, Container is the one that logs.
	Namespace, Selector, Container string
}

// Ztunnels are the node proxies where Istio's chart puts them.
func Ztunnels(cluster traffic.Cluster) NodeProxies {
	return NodeProxies{Cluster: cluster, Namespace: names.Istio, Selector: "app=ztunnel", Container: "istio-proxy"}
}

// nodeStats is where ztunnel serves its metrics (ztunnel, src/config.rs, DEFAULT_STATS_PORT).
const (
	nodeStatsPort = 15020
	nodeStatsPath = "/stats/prometheus"
)

// Connections are what the node proxies count about connections: the series of istio_tcp_connections_opened_total and
// istio_tcp_connections_failed_total.
type Connections struct {
	series []series
	// Pods are the incarnations of the pods that were read.
	Pods []string
}

type series struct {
	name   string
	labels map[string]string
	value  float64
}

// Metrics of the node proxies.
const (
	Opened = "istio_tcp_connections_opened_total"
	Failed = "istio_tcp_connections_failed_total"
)

// Sum adds up the series of a metric that have all these labels.
func (c Connections) Sum(name string, labels map[string]string) int {
	sum := 0.0
	for _, s := range c.series {
		if s.name == name && s.has(labels) {
			sum += s.value
		}
	}
	return int(sum)
}

func (s series) has(labels map[string]string) bool {
	for name, value := range labels {
		if s.labels[name] != value {
			return false
		}
	}
	return true
}

// Connections reads the counters of all node proxies.
func (n NodeProxies) Connections(ctx context.Context) (Connections, error) {
	pods, err := n.Cluster.Pods(ctx, n.Namespace, n.Selector)
	if err != nil {
		return Connections{}, fmt.Errorf("listing the node proxies: %w", err)
	}
	var all Connections
	for _, pod := range pods {
		if !pod.Ready {
			continue
		}
		all.Pods = append(all.Pods, pod.Incarnation())
		answer, err := get(ctx, n.Cluster, n.Namespace, pod.Name, nodeStatsPort, nodeStatsPath)
		if err == nil {
			err = all.add(answer)
		}
		if err != nil {
			return Connections{}, fmt.Errorf("reading the counters of node proxy %s: %w", pod.Name, err)
		}
	}
	if len(all.Pods) == 0 {
		return all, fmt.Errorf("of %d node proxies none is ready", len(pods))
	}
	return all, nil
}

// add adds the series that a node proxy serves.
func (c *Connections) add(text []byte) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("reading metrics: %w", err)
	}
	for _, name := range []string{Opened, Failed} {
		for _, metric := range families[name].GetMetric() {
			s := series{name: name, labels: map[string]string{}, value: valueOf(metric)}
			for _, label := range metric.GetLabel() {
				s.labels[label.GetName()] = label.GetValue()
			}
			c.series = append(c.series, s)
		}
	}
	return nil
}

// valueOf reads a counter; ztunnel serves some of its counters without a type.
func valueOf(metric *dto.Metric) float64 {
	if counter := metric.GetCounter(); counter != nil {
		return counter.GetValue()
	}
	return metric.GetUntyped().GetValue()
}

// Lines counts the lines of the node proxies' logs since a moment that match, by any field; it returns when it has
// found as many as are wanted, or when no more came for patience.
func (n NodeProxies) Lines(
	ctx context.Context, since time.Time, want int, patience time.Duration, match func(line string) bool,
) (int, error) {
	pods, err := n.Cluster.Pods(ctx, n.Namespace, n.Selector)
	if err != nil {
		return 0, fmt.Errorf("listing the node proxies: %w", err)
	}
	found, err := CountLines(ctx, n.Cluster, Logs{
		Namespace: n.Namespace, Container: n.Container, Pods: pods, Since: since, Want: want, Patience: patience,
		Match: match,
	})
	sum := 0
	for _, count := range found {
		sum += count
	}
	return sum, err
}
