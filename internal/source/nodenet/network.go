package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// network is the pod network as one node sees it.
type network struct {
	self       string
	subnets    []string
	configPath string
	log        *slog.Logger

	masqueraded string // the subnets that have masquerade rules
}

// route is the route to a pod CIDR through a node's address.
type route struct {
	dst netip.Prefix
	via netip.Addr
}

// reconcile updates the node's routes, masquerade rules and CNI configuration for the nodes of the cluster. The CNI
// configuration comes last: it makes the kubelet report the node as ready, and pods start.
func (n *network) reconcile(nodes []*corev1.Node) error {
	i := slices.IndexFunc(nodes, func(node *corev1.Node) bool { return node.Name == n.self })
	if i < 0 || len(nodes[i].Spec.PodCIDRs) == 0 {
		return nil // The controller manager has not set this node's CIDR yet. An event follows when it does.
	}
	self := nodes[i]
	wanted, err := routesTo(nodes, n.self)
	if err != nil {
		return err
	}
	// If one fails, the others are done all the same: each is useful alone.
	errs := []error{n.syncRoutes(wanted), n.syncMasquerade()}
	podCIDRs, err := prefixes(self.Spec.PodCIDRs)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("reading the pod CIDRs of node %s: %w", self.Name, err))...)
	}
	mtu, err := mtuOf(addresses(self))
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	changed, err := writeConfig(n.configPath, podCIDRs, mtu)
	if err != nil {
		errs = append(errs, err)
	}
	if changed {
		n.log.Info("wrote the CNI configuration", "path", n.configPath, "podCIDRs", self.Spec.PodCIDRs, "mtu", mtu)
	}
	return errors.Join(errs...)
}

// routesTo lists a route to every pod CIDR of every node but self, by the node's address of the same family.
func routesTo(nodes []*corev1.Node, self string) ([]route, error) {
	var out []route
	for _, node := range nodes {
		if node.Name == self {
			continue
		}
		cidrs, err := prefixes(node.Spec.PodCIDRs)
		if err != nil {
			return nil, fmt.Errorf("reading the pod CIDRs of node %s: %w", node.Name, err)
		}
		for _, cidr := range cidrs {
			for _, addr := range addresses(node) {
				if addr.Is4() == cidr.Addr().Is4() {
					out = append(out, route{dst: cidr, via: addr})
					break
				}
			}
		}
	}
	return out, nil
}

// addresses are the node's internal addresses, as the kubelet reports them.
func addresses(node *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range node.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

func prefixes(cidrs []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(cidrs))
	for _, cidr := range cidrs {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, err
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
