// Package node knows the containers that are a kind cluster's nodes: how to find
// them, how to tell the lab's own from others, and how to tune their kernel
// settings through the Docker API.
package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
)

// The labels kind puts on every node container (kind, pkg/cluster/internal/providers/docker/constants.go).
const (
	ClusterLabel = "io.x-k8s.kind.cluster"
	RoleLabel    = "io.x-k8s.kind.role"
)

// The roles of a node container. A LoadBalancer stands before several control
// planes; it is no Kubernetes node.
const (
	ControlPlane = "control-plane"
	Worker       = "worker"
	LoadBalancer = "external-load-balancer"
)

// Node is one node of a cluster.
type Node struct {
	Name, Role string
	// ContainerID is empty where the node is not a Docker container.
	ContainerID string
	// InternalIP is its IPv4 address on the Docker network, or the node's
	// InternalIP in an existing cluster; empty when it is not running.
	InternalIP string
	// Cluster is kind's name of the cluster.
	Cluster string
	// Network names the Docker network the node is on.
	Network string
	// Running tells whether the container runs, or the node is Ready.
	Running bool
	// Created is when the container was made, to the second.
	Created time.Time
	// Mark is the lab's mark, or nil where the lab did not make the container.
	Mark *Mark
}

// Lister is the part of the Docker client List needs.
type Lister interface {
	ContainerList(ctx context.Context, options client.ContainerListOptions) (client.ContainerListResult, error)
}

// List finds the containers of a kind cluster, stopped ones included, sorted by
// role and name. An empty cluster name lists the nodes of all kind clusters.
func List(ctx context.Context, api Lister, cluster string) ([]Node, error) {
	label := ClusterLabel
	if cluster != "" {
		label += "=" + cluster
	}
	found, err := api.ContainerList(ctx, client.ContainerListOptions{
		All:     true,
		Filters: client.Filters{}.Add("label", label),
	})
	if err != nil {
		return nil, fmt.Errorf("listing the node containers of kind cluster %q: %w", cluster, err)
	}
	nodes := make([]Node, 0, len(found.Items))
	for _, c := range found.Items {
		nodes = append(nodes, fromContainer(c))
	}
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return nodes, nil
}

func fromContainer(c container.Summary) Node {
	n := Node{
		Role:        c.Labels[RoleLabel],
		ContainerID: c.ID,
		Cluster:     c.Labels[ClusterLabel],
		Running:     c.State == container.StateRunning,
		Created:     time.Unix(c.Created, 0).UTC(),
	}
	if len(c.Names) > 0 {
		n.Name = strings.TrimPrefix(c.Names[0], "/")
	}
	for _, m := range c.Mounts {
		if mark, ok := parseMark(m.Destination); ok {
			n.Mark = &mark
		}
	}
	name, endpoint := endpointOf(c)
	n.Network = name
	if endpoint != nil && endpoint.IPAddress.IsValid() {
		n.InternalIP = endpoint.IPAddress.String()
	}
	return n
}

// endpointOf picks the network kind attached the container to: the one of its
// HostConfig. A user may have connected it to others since.
func endpointOf(c container.Summary) (string, *network.EndpointSettings) {
	if c.NetworkSettings == nil {
		return c.HostConfig.NetworkMode, nil
	}
	networks := c.NetworkSettings.Networks
	if ep, ok := networks[c.HostConfig.NetworkMode]; ok {
		return c.HostConfig.NetworkMode, ep
	}
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		return name, networks[name]
	}
	return "", nil
}
