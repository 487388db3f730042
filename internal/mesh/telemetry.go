package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
)

// Tracing is what decides whether the mesh's proxies send traces to the add-on Jaeger.
type Tracing struct {
	// Telemetries are those of the mesh as a whole.
	Telemetries []*telemetryv1.Telemetry
	// Collector is the Service that the proxies send traces to, and Pods are those of its namespace.
	Collector *corev1.Service
	Pods      []corev1.Pod
}

// The provider of traces in the mesh's configuration, and the Service that it names.
const (
	tracingProvider  = "jaeger"
	collectorService = "jaeger-collector"
)

func telemetries() schema.GroupVersionResource {
	return telemetryv1.SchemeGroupVersion.WithResource("telemetries")
}

func (m *Mesh) tracing(ctx context.Context) (t Tracing, err error) {
	var errs [3]error
	t.Telemetries, errs[0] = list[telemetryv1.Telemetry](ctx, m, telemetries(), names.Istio)
	t.Collector, errs[1] = m.service(ctx, names.Istio, collectorService)
	pods, err := m.kube.CoreV1().Pods(names.Istio).List(ctx, metav1.ListOptions{})
	if err != nil {
		errs[2] = fmt.Errorf("listing the pods of namespace %s: %w", names.Istio, err)
	} else {
		t.Pods = pods.Items
	}
	return t, errors.Join(errs[:]...)
}

// TracingTrouble says why the proxies send no trace of a request, or not of every one, or why none arrives.
func (o *Objects) TracingTrouble() *problem.Problem {
	if len(o.Tracing.Telemetries) == 0 {
		return problem.New(problem.ConfigNotAttached, nil, "there is no Telemetry in namespace %s, so no proxy sends "+
			"traces", names.Istio)
	}
	for _, t := range o.Tracing.Telemetries {
		for _, tracing := range t.Spec.GetTracing() {
			if trouble := samplingTrouble(t.Name, tracing); trouble != nil {
				return trouble
			}
		}
	}
	if o.Tracing.Collector == nil {
		return problem.New(problem.ConfigNotAttached, nil, "Service %s/%s, which the proxies send traces to, does not "+
			"exist", names.Istio, collectorService)
	}
	selector := labels.SelectorFromSet(o.Tracing.Collector.Spec.Selector)
	if !slices.ContainsFunc(o.Tracing.Pods,
		func(p corev1.Pod) bool { return selector.Matches(labels.Set(p.Labels)) }) {
		return problem.New(problem.ConfigNotAttached, nil, "Service %s/%s selects %s, and no pod has these labels: "+
			"the proxies' traces go nowhere", names.Istio, collectorService, selector)
	}
	return nil
}

func samplingTrouble(name string, tracing *telemetryapi.Tracing) *problem.Problem {
	var providers []string
	for _, p := range tracing.GetProviders() {
		providers = append(providers, p.GetName())
	}
	sampling := tracing.GetRandomSamplingPercentage()
	switch {
	case !slices.Contains(providers, tracingProvider):
		return problem.New(problem.ConfigNotAttached, nil, "Telemetry %s sends traces to the provider %s, not to %s",
			name, orNone(providers), tracingProvider)
	case tracing.GetDisableSpanReporting().GetValue():
		return problem.New(problem.ConfigNotAttached, nil, "Telemetry %s turns traces off", name)
	case sampling == nil:
		return problem.New(problem.ConfigNotAttached, nil, "Telemetry %s gives no percentage, so one of a hundred "+
			"requests is traced", name)
	case sampling.GetValue() < 100:
		return problem.New(problem.ConfigNotAttached, nil, "Telemetry %s traces %g %% of the requests, not 100 %%",
			name, sampling.GetValue())
	}
	return nil
}

// scrapeAnnotation tells the add-on Prometheus to read a pod's metrics.
const scrapeAnnotation = "prometheus.io/scrape"

// ScrapeTrouble says which node proxies tell Prometheus not to read their metrics.
func (o *Objects) ScrapeTrouble() *problem.Problem {
	var silent []string
	for _, pod := range o.Ztunnels {
		if pod.Annotations[scrapeAnnotation] != "true" {
			silent = append(silent, pod.Name)
		}
	}
	if len(silent) == 0 {
		return nil
	}
	return problem.New(problem.ConfigNotAttached, nil, "pods %s have no annotation %s: \"true\", so Prometheus does "+
		"not read them", strings.Join(silent, ", "), scrapeAnnotation)
}
