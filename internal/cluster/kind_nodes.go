package cluster

import (
	"context"
	"fmt"
	"strconv"

	"github.com/containerd/errdefs"

	"ambientlab/internal/docker"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Traits says what a kind cluster of the lab's own is like.
func (k *Kind) Traits() Traits {
	create := "kind create cluster --name " + k.opts.Name
	if images, err := k.NodeImages(); err == nil && len(images) == 1 {
		create += " --image " + images[0]
	}
	return Traits{
		Name:            ProviderKind,
		Title:           "kind cluster " + k.opts.Name,
		Owned:           true,
		LoadBalancer:    true,
		UsesDocker:      true,
		TunesNodes:      true,
		GatewayNodePort: k.gatewayNodePort(),
		CreateCommands: []string{
			create + " --config " + configFile,
			"kubectl wait --timeout=10m --for=condition=Ready node --all",
			fmt.Sprintf(
				"docker exec %s-control-plane touch %s/%s   # says that the cluster is complete",
				k.opts.Name,
				completeDir,
				completeFile,
			),
		},
	}
}

// configFile is the name of the file of kind's configuration in CreateCommands.
const configFile = "kind.yaml"

// Files gives kind's configuration with the lab's mark: that of the cluster, or the one that a new cluster would get.
// Without a Docker engine a new cluster gets the first slot.
func (k *Kind) Files(ctx context.Context) (map[string][]byte, error) {
	config, err := k.existingConfig(ctx)
	if config == nil && err == nil {
		config, err = k.markedConfig(ctx)
	}
	if err != nil {
		return nil, err
	}
	return map[string][]byte{configFile: config}, nil
}

// existingConfig is kind's configuration with the mark that the cluster has, or nil where there is no such cluster.
func (k *Kind) existingConfig(ctx context.Context) ([]byte, error) {
	if k.opts.Docker == nil {
		return nil, nil
	}
	nodes, err := k.nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if k.marked(n) {
			return withMark(k.opts.Config, *n.Mark)
		}
	}
	return nil, nil
}

// markedConfig is kind's configuration with the mark that a new cluster gets.
func (k *Kind) markedConfig(ctx context.Context) ([]byte, error) {
	slot := 0
	if k.opts.Docker != nil {
		var err error
		if slot, err = lb.Choose(ctx, k.opts.Docker, k.opts.Network); err != nil {
			return nil, docker.Explain(ctx, err, k.opts.Endpoint)
		}
	}
	return withMark(k.opts.Config, node.Mark{Lab: k.opts.Name, Slot: slot})
}

// PlannedPool gives the addresses of a cluster that does not exist, where its Docker network does. The error is
// problem.ClusterNone where it does not.
func (k *Kind) PlannedPool(ctx context.Context) (lb.Pool, error) {
	if k.opts.Docker == nil {
		return lb.Pool{}, problem.New(
			problem.ClusterNone, nil, "no Docker engine answers, so its networks are not known",
		)
	}
	pool, err := lb.Planned(ctx, k.opts.Docker, k.opts.Network)
	if errdefs.IsNotFound(err) {
		return pool, problem.New(problem.ClusterNone, err, "Docker network %s does not exist yet", k.opts.Network)
	}
	return pool, docker.Explain(ctx, err, k.opts.Endpoint)
}

// gatewayNodePort is the gateway's node port where the configuration publishes it. Elsewhere the port could be that of
// a Service of the user's.
func (k *Kind) gatewayNodePort() int {
	_, nodes, err := parseConfig(k.opts.Config)
	if err != nil {
		return 0 // creating the cluster gives the error
	}
	for _, n := range nodes {
		mappings, _ := n["extraPortMappings"].([]any)
		for _, m := range mappings {
			if mapping, _ := m.(map[string]any); fmt.Sprint(mapping["containerPort"]) == strconv.Itoa(
				node.GatewayPort,
			) {
				return node.GatewayPort
			}
		}
	}
	return 0
}

// Nodes lists the cluster's containers, the load balancer's included.
func (k *Kind) Nodes(ctx context.Context) ([]Node, error) { return k.nodes(ctx) }

// AddressPool takes addresses from the nodes' Docker network.
func (k *Kind) AddressPool(ctx context.Context) (lb.Pool, error) {
	nodes, err := k.nodes(ctx)
	if err != nil {
		return lb.Pool{}, err
	}
	return lb.Find(ctx, k.opts.Docker, nodes)
}

// NodeImages lists the images that the nodes run: the option NodeImage, else those that the configuration names.
func (k *Kind) NodeImages() ([]string, error) {
	if k.opts.NodeImage != "" {
		return []string{k.opts.NodeImage}, nil
	}
	return NodeImages(k.opts.Config)
}
