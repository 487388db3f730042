package lb

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// The namespace of MetalLB and its configuration, and the name of the lab's objects in it.
const (
	Namespace = "metallb-system"
	PoolName  = "ambientlab"
)

const metalLBVersion = "metallb.io/v1beta1"

// Objects returns the MetalLB configuration for the pool: an IPAddressPool, and an L2Advertisement, so that MetalLB
// announces the addresses by ARP.
func Objects(p Pool) []*unstructured.Unstructured {
	addresses := make([]any, 0, len(p.Ranges))
	for _, r := range p.Ranges {
		addresses = append(addresses, r.String())
	}
	return []*unstructured.Unstructured{
		object("IPAddressPool", map[string]any{
			"addresses":  addresses,
			"autoAssign": true,
			// Some old clients treat x.x.x.0 and x.x.x.255 as broadcast addresses, and a slot of a /16 may contain
			// them.
			"avoidBuggyIPs": true,
		}),
		object("L2Advertisement", map[string]any{
			"ipAddressPools": []any{PoolName},
		}),
	}
}

func object(kind string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": metalLBVersion,
		"kind":       kind,
		"metadata":   map[string]any{"name": PoolName, "namespace": Namespace},
		"spec":       spec,
	}}
}

// Generated says whether MetalLB made an object by itself, without an owner: only MetalLB writes objects of these
// kinds.
func Generated(obj client.Object) bool {
	gvk := obj.GetObjectKind().GroupVersionKind()
	kinds := []string{"ServiceL2Status", "ServiceBGPStatus", "ConfigurationState"}
	return gvk.Group == "metallb.io" && slices.Contains(kinds, gvk.Kind)
}
