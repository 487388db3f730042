// Package lessontest holds what tests of the lessons share: the ways in which ambient mesh breaks without an error.
package lessontest

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/lesson/names"
)

// Sabotage is a change of one object that takes away the effect of a lesson, while every object looks healthy.
type Sabotage struct {
	Name string
	// Resource, Object, PatchType and Patch are the change, in the lab's namespace.
	Resource  schema.GroupVersionResource
	Object    string
	PatchType types.PatchType
	Patch     string
	// Claims must not be proven then, and one of the likely causes of each must have the text Says.
	Claims []string
	Says   string
	// Lesson is the one whose target mends it. Before, the object must be deleted where Delete is set, and patched with
	// Undo where that is set: the target changes neither fields that others own nor what istiod made.
	Lesson string
	Delete bool
	Undo   string
}

// Sabotages lists every way.
func Sabotages() []Sabotage {
	policies := schema.GroupVersionResource{
		Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies",
	}
	virtualServices := schema.GroupVersionResource{
		Group: "networking.istio.io", Version: "v1", Resource: "virtualservices",
	}
	return []Sabotage{
		{
			Name:     "policy with selector instead of targetRefs",
			Resource: policies, Object: "appb-get-only", PatchType: types.MergePatchType,
			Patch:  `{"spec":{"targetRefs":null,"selector":{"matchLabels":{"app":"appb"}}}}`,
			Claims: []string{"authz-post-appa", "authz-post-gateway", "authz-outsider"}, Says: "`selector`",
			Lesson: "authz", Delete: true,
		},
		{
			Name:     "ingress label removed",
			Resource: schema.GroupVersionResource{Version: "v1", Resource: "services"}, Object: names.AppB,
			PatchType: types.MergePatchType,
			Patch:     `{"metadata":{"labels":{"istio.io/ingress-use-waypoint":null}}}`,
			Claims:    []string{"waypoint-gateway", "fault-gateway", "authz-post-gateway"},
			Says:      "ingress-use-waypoint", Lesson: "waypoint",
		},
		{
			Name:     "waypoint scaled to zero",
			Resource: schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"},
			Object:   names.Waypoint, PatchType: types.MergePatchType, Patch: `{"spec":{"replicas":0}}`,
			Claims: []string{"waypoint-appa", "waypoint-gateway", "authz-post-appa"}, Says: "scaled to zero",
			Lesson: "waypoint", Undo: `{"spec":{"replicas":1}}`,
		},
		{
			Name:     "VirtualService for another host",
			Resource: virtualServices, Object: "appb-delay", PatchType: types.MergePatchType,
			Patch:  `{"spec":{"hosts":["appa.default.svc.cluster.local"]}}`,
			Claims: []string{"fault-appa", "fault-gateway"}, Says: "for the host appa",
			Lesson: "fault", Delete: true,
		},
		{
			Name:     "30 % where 50 % is claimed",
			Resource: virtualServices, Object: "appb-delay", PatchType: types.JSONPatchType,
			Patch:  `[{"op":"replace","path":"/spec/http/0/fault/delay/percentage/value","value":30}]`,
			Claims: []string{"fault-appa", "fault-gateway"}, Says: "30 %",
			Lesson: "fault",
		},
	}
}
