package apply

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// apiServiceState wants an aggregated API to answer.
func apiServiceState(obj *unstructured.Unstructured) state {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	return requireConditions(obj, conditions, "Available")
}
