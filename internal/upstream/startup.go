package upstream

import (
	"maps"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A startup probe asks every second, for at most ten minutes: it must not end a container that a slow machine starts.
const (
	startupPeriod   = 1
	startupFailures = 600
)

// readinessPeriod, in seconds, is the longest time between two readiness probes. A kubelet that has run for less than
// the period of a probe waits for a random part of that period before the first one (k8s.io/kubernetes,
// pkg/kubelet/prober/worker.go): with the usual ten seconds, up to ten on the nodes of a new cluster.
const readinessPeriod = 2

// The kubelet's defaults (k8s.io/api/core/v1, Probe).
const (
	defaultPeriod   = 10
	defaultFailures = 3
)

// AskSoon makes the kubelet notice at once that a container has become ready: a container with a readiness probe gets a
// startup probe that asks the same every second, as Istio's own proxies have one, and is asked every two seconds after
// that. Without it the kubelet asks every ten seconds, and MetalLB for the first time after ten. A container that fails
// is found not ready after the same time as by its manifest. The objects are changed in place.
func AskSoon(objs []*unstructured.Unstructured) {
	for _, obj := range objs {
		eachContainer(obj, func(container map[string]any) {
			readiness, ok := container["readinessProbe"].(map[string]any)
			if _, has := container["startupProbe"]; !ok || has {
				return
			}
			startup := maps.Clone(readiness)
			delete(startup, "initialDelaySeconds")
			delete(startup, "successThreshold") // a startup probe has no other than 1
			startup["periodSeconds"], startup["failureThreshold"] = int64(startupPeriod), int64(startupFailures)
			container["startupProbe"] = startup
			delete(readiness, "initialDelaySeconds") // it would count from the start of the container
			askOften(readiness)
		})
	}
}

// askOften shortens the period of a probe, and allows as many more failures.
func askOften(probe map[string]any) {
	period := number(probe, "periodSeconds", defaultPeriod)
	failures := number(probe, "failureThreshold", defaultFailures)
	if period <= readinessPeriod {
		return
	}
	probe["periodSeconds"] = int64(readinessPeriod)
	probe["failureThreshold"] = (period*failures + readinessPeriod - 1) / readinessPeriod
}

// number reads a whole number of an object, or gives the default where the field is not set.
func number(fields map[string]any, name string, otherwise int64) int64 {
	if value, ok := fields[name].(int64); ok {
		return value
	}
	return otherwise
}
