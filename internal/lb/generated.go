package lb

import (
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Generated says whether MetalLB made an object by itself, without an owner: only MetalLB writes objects of these
// kinds.
func Generated(obj client.Object) bool {
	gvk := obj.GetObjectKind().GroupVersionKind()
	kinds := []string{"ServiceL2Status", "ServiceBGPStatus", "ConfigurationState"}
	return gvk.Group == "metallb.io" && slices.Contains(kinds, gvk.Kind)
}
