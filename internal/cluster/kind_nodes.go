package cluster

import (
	"context"

	"ambientlab/internal/lb"
)

// Traits says what a kind cluster of the lab's own is like.
func (k *Kind) Traits() Traits {
	create := "kind create cluster --name " + k.opts.Name
	if images, err := k.NodeImages(); err == nil && len(images) == 1 {
		create += " --image " + images[0]
	}
	return Traits{
		Name:           ProviderKind,
		Title:          "kind cluster " + k.opts.Name,
		Owned:          true,
		LoadBalancer:   true,
		UsesDocker:     true,
		TunesNodes:     true,
		CreateCommands: []string{create + " --config kind.yaml"},
		LoadCommand:    "kind load image-archive --name " + k.opts.Name + " <bundle as archive>",
	}
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
