package embedded

import (
	"context"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/cluster"
	"ambientlab/internal/lb"
)

var (
	_ cluster.Provider      = (*Embedded)(nil)
	_ cluster.Adapter       = (*Embedded)(nil)
	_ cluster.ProcessRunner = (*Embedded)(nil)
	_ cluster.ConfigSource  = (*Embedded)(nil)
	_ cluster.Substituter   = (*Embedded)(nil)
	_ cluster.PodRunner     = (*Embedded)(nil)
)

// Traits says what an embedded control plane is like.
func (e *Embedded) Traits() cluster.Traits {
	return cluster.Traits{
		Name: Provider, Title: "embedded control plane " + e.opts.Name, Owned: true, LoadBalancer: true,
		BuildsPrograms: true,
		NoImages:       "the embedded control plane runs no images",
		CreateCommands: []string{
			"# mage sm:install creates the embedded control plane; kind, docker and kubectl cannot",
		},
		AddonsOnRequest: true, NoAddons: e.noAddons(),
	}
}

// noAddons are the add-ons whose pods cannot run. What Grafana and Kiali serve is made by JavaScript builds, which no
// Go module holds; Prometheus and Jaeger run where packets flow.
func (e *Embedded) noAddons() []string {
	runnable, all := []string{"prometheus", "jaeger"}, []string{"prometheus", "grafana", "jaeger", "kiali"}
	// whether packets flow is decided when the lab is created
	if e.Packets() || !e.Exists() && e.opts.Packets != "off" {
		return slices.DeleteFunc(all, func(addon string) bool { return slices.Contains(runnable, addon) })
	}
	return all
}

// Nodes lists the nodes. None is a container.
func (e *Embedded) Nodes(context.Context) ([]cluster.Node, error) {
	s, err := e.load()
	if err != nil {
		return nil, nil // it does not exist yet
	}
	return e.nodes(s), nil
}

// AddressPool is the same for every lab: TEST-NET-1, which RFC 5737 reserves for documentation and which is not routed.
func (e *Embedded) AddressPool(context.Context) (lb.Pool, error) {
	return lb.Pool{
		Subnet: netip.MustParsePrefix("192.0.2.0/24"),
		Ranges: []lb.Range{{First: netip.MustParseAddr("192.0.2.1"), Last: netip.MustParseAddr("192.0.2.254")}},
	}, nil
}

// Simulated tells whether an object is a workload, or makes istiod create one, whose pods are only reported as running.
func (e *Embedded) Simulated(object *unstructured.Unstructured) bool {
	_, marked := object.GetAnnotations()[Simulated]
	return marked || object.GetKind() == "Gateway" && !e.Packets()
}
