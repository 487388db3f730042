// Package node finds the containers that are the nodes of a kind cluster, identifies those that the lab created, and
// raises their kernel settings through the Docker API.
package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
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

// The roles of a node container. kind creates a LoadBalancer for several control planes; it is not a Kubernetes node.
const (
	ControlPlane = "control-plane"
	Worker       = "worker"
	LoadBalancer = "external-load-balancer"
)

// APIServerPort is the port at which the API server of a kind node listens (kind,
// pkg/cluster/internal/providers/common/constants.go).
const APIServerPort = "6443"

// GatewayPort is the node port of the lab's gateway, which the lab's kind configuration publishes. It is in the range
// from which Kubernetes gives no ports by itself (Kubernetes documentation, "Avoid collisions assigning ports to
// NodePort Services").
const GatewayPort = 30042

// Node is a node of a cluster.
type Node struct {
	Name, Role string
	// ContainerID is empty if the node is not a Docker container.
	ContainerID string
	// InternalIP is the IPv4 address on the Docker network, or the node's InternalIP in an existing cluster. It is
	// empty if the container is not running.
	InternalIP string
	// APIServer is the address, host and port, at which Docker publishes the API server's port; empty if it does not.
	APIServer string
	// Gateway is the address, host and port, at which Docker publishes GatewayPort; empty if it does not.
	Gateway string
	// Cluster is the name of the kind cluster.
	Cluster string
	// Network is the name of the Docker network that the node is on.
	Network string
	// Running says that the container runs, or that the node is Ready.
	Running bool
	// Created is the time at which the container was created, in whole seconds.
	Created time.Time
	// Mark is nil if the lab did not create the container.
	Mark *Mark
}

// Lister is the part of the Docker client that List uses.
type Lister interface {
	ContainerList(ctx context.Context, options client.ContainerListOptions) (client.ContainerListResult, error)
}

// List returns the node containers of a kind cluster, also stopped ones, sorted by role and name. With an empty cluster
// name it returns those of all kind clusters. The error is the Docker client's.
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
	for _, p := range c.Ports {
		if p.PublicPort == 0 || !p.IP.IsValid() {
			continue
		}
		address := netip.AddrPortFrom(p.IP, p.PublicPort).String()
		switch {
		case strconv.Itoa(int(p.PrivatePort)) == APIServerPort:
			n.APIServer = address
		case p.PrivatePort == GatewayPort:
			n.Gateway = address
		}
	}
	name, endpoint := endpointOf(c)
	n.Network = name
	if endpoint != nil && endpoint.IPAddress.IsValid() {
		n.InternalIP = endpoint.IPAddress.String()
	}
	return n
}

// endpointOf returns the network that kind connected the container to: the one in its HostConfig. A user may have
// connected the container to further networks.
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
