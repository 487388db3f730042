package lb

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Where MetalLB lives and reads its configuration, and the name of the lab's.
const (
	Namespace = "metallb-system"
	PoolName  = "ambientlab"
)

const metalLBVersion = "metallb.io/v1beta1"

// Objects gives MetalLB's configuration for the pool: the addresses, and that they
// are announced by ARP on the nodes' network.
func Objects(p Pool) []*unstructured.Unstructured {
	addresses := make([]any, 0, len(p.Ranges))
	for _, r := range p.Ranges {
		addresses = append(addresses, r.String())
	}
	return []*unstructured.Unstructured{
		object("IPAddressPool", map[string]any{
			"addresses":  addresses,
			"autoAssign": true,
			// Some old clients take x.x.x.0 and x.x.x.255 for broadcast addresses,
			// and a slot of a /16 may end in one.
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
