package mesh

import (
	"strings"
	"testing"

	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/specs"
)

// tracing is what the lab applies, with Jaeger's Service and its pod.
func tracing(t *testing.T) Tracing {
	t.Helper()
	objects, err := specs.Objects("istio/telemetry.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := decodeObject[telemetryv1.Telemetry](objects[0].Object)
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "jaeger"}
	return Tracing{
		Telemetries: []*telemetryv1.Telemetry{applied},
		Collector:   &corev1.Service{Spec: corev1.ServiceSpec{Selector: labels}},
		Pods:        []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "jaeger-x", Labels: labels}}},
	}
}

func TestTracingTrouble(t *testing.T) {
	change := func(to func(*telemetryapi.Tracing)) func(*Tracing) {
		return func(tr *Tracing) { to(tr.Telemetries[0].Spec.Tracing[0]) }
	}
	for name, tc := range map[string]struct {
		change func(*Tracing)
		says   string
	}{
		"as applied":   {func(*Tracing) {}, ""},
		"no Telemetry": {func(tr *Tracing) { tr.Telemetries = nil }, "there is no Telemetry in namespace istio-system"},
		"another provider": {
			change(func(tr *telemetryapi.Tracing) { tr.Providers[0].Name = "zipkin" }),
			"to the provider zipkin, not to jaeger",
		},
		"no provider": {
			change(func(tr *telemetryapi.Tracing) { tr.Providers = nil }), "to the provider nothing, not to jaeger",
		},
		"no request": {
			change(func(tr *telemetryapi.Tracing) { tr.RandomSamplingPercentage.Value = 0 }),
			"traces 0 % of the requests",
		},
		"no percentage": {
			change(func(tr *telemetryapi.Tracing) { tr.RandomSamplingPercentage = nil }), "one of a hundred",
		},
		"no collector": {
			func(tr *Tracing) { tr.Collector = nil }, "jaeger-collector, which the proxies send traces to",
		},
		"a collector without pods": {
			func(tr *Tracing) { tr.Collector.Spec.Selector = map[string]string{"app": "zipkin"} }, "selects app=zipkin",
		},
	} {
		o := &Objects{Tracing: tracing(t)}
		tc.change(&o.Tracing)
		trouble := o.TracingTrouble()
		if (trouble == nil) != (tc.says == "") || trouble != nil && !strings.Contains(trouble.Seen, tc.says) {
			t.Errorf("%s: got %v, want %q", name, trouble, tc.says)
		}
	}
}

func TestScrapeTrouble(t *testing.T) {
	pod := func(name, scrape string) corev1.Pod {
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{"prometheus.io/scrape": scrape},
		}}
	}
	o := &Objects{Ztunnels: []corev1.Pod{
		pod("a", "true"), pod("b", "false"), {ObjectMeta: metav1.ObjectMeta{Name: "c"}},
	}}
	if trouble := o.ScrapeTrouble(); trouble == nil || !strings.Contains(trouble.Seen, "pods b, c have no annotation") {
		t.Errorf("got %v", trouble)
	}
	if trouble := (&Objects{Ztunnels: o.Ztunnels[:1]}).ScrapeTrouble(); trouble != nil {
		t.Errorf("got %v", trouble)
	}
}
