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

// AskSoon makes the kubelet notice at once that a container has become ready: a container with a readiness probe gets a
// startup probe that asks the same every second, as Istio's own proxies have one. Without it the kubelet asks every ten
// seconds, and MetalLB for the first time after ten. A container that has started is probed as its manifest says. The
// objects are changed in place.
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
		})
	}
}
