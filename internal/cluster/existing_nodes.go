package cluster

import (
	"context"
	"fmt"

	"ambientlab/internal/lb"
	"ambientlab/internal/problem"
)

// Traits says what a cluster is like that the lab did not create.
func (e *Existing) Traits() Traits {
	return Traits{
		Name:           ProviderExisting,
		Title:          "the cluster of the current kubeconfig context",
		UsesDocker:     true,
		TunesNodes:     e.opts.Docker != nil,
		CreateCommands: []string{"kubectl cluster-info"},
	}
}

// Nodes lists the nodes that the API server knows. Those that are kind containers of this host have a ContainerID.
func (e *Existing) Nodes(ctx context.Context) ([]Node, error) {
	info, silent, err := e.look(ctx)
	if err == nil && silent != nil {
		err = problem.New(
			problem.ClusterUnreachable, silent, "the cluster of context %s at %s does not answer", info.Context,
			info.Server,
		)
	}
	return info.Nodes, err
}

// AddressPool takes addresses from the Docker network of those nodes that are kind containers of this host.
func (e *Existing) AddressPool(ctx context.Context) (lb.Pool, error) {
	nodes, err := e.Nodes(ctx)
	if err != nil {
		return lb.Pool{}, err
	}
	containers := withContainerID(nodes)
	if len(containers) == 0 {
		return lb.Pool{}, problem.New(problem.SettingInvalid, nil,
			"SM_METALLB=on takes its addresses from the nodes' Docker network, so the nodes must be containers on "+
				"this host; the cluster of context %s has %s", e.chosen(""), e.elsewhere(nodes)).
			With("Unset SM_METALLB, and use the load balancer that the cluster has.")
	}
	return lb.Find(ctx, e.opts.Docker, containers)
}

func withContainerID(nodes []Node) []Node {
	var containers []Node
	for _, n := range nodes {
		if n.ContainerID != "" {
			containers = append(containers, n)
		}
	}
	return containers
}

// elsewhere counts the nodes that are not containers of this host and names the first. It is empty where there is none
// of them.
func (e *Existing) elsewhere(nodes []Node) string {
	count, first := 0, ""
	for _, n := range nodes {
		if n.ContainerID == "" {
			if count++; count == 1 {
				first = n.Name
			}
		}
	}
	text := ""
	switch {
	case len(nodes) == 0:
		text = "no nodes"
	case count > 0:
		text = fmt.Sprintf("%d of %d nodes elsewhere, such as %s", count, len(nodes), first)
	default:
		return ""
	}
	if e.opts.NoDocker != nil {
		text += fmt.Sprintf(" (no Docker engine answers: %v)", e.opts.NoDocker)
	}
	return text
}
