package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"ambientlab/podrunner/internal/netns"
)

// SetServices makes a pod outside of the mesh reach Services, as kube-proxy would: a new connection to a Service's
// address goes to one of its endpoints, chosen at random; one to a Service without endpoints is refused. In a pod of
// the mesh the node proxy does that.
func SetServices(pod *netns.Namespace, serviceRange netip.Prefix, services []Service) error {
	return pod.Do(func() error {
		t, err := newTable("services")
		if err == nil {
			t.chain(
				"nat-output",
				nftables.ChainTypeNAT,
				nftables.ChainHookOutput,
				nftables.ChainPriorityNATDest,
				serviceRules(services)...)
			// What is still on its way to a Service's address has no endpoint.
			t.chain("filter-output", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityFilter,
				concat(destination(expr.CmpOpEq, serviceRange), refuse()))
			err = t.commit()
		}
		if err != nil {
			return fmt.Errorf("writing the rules of Services: %w", err)
		}
		return nil
	})
}

// serviceRules are the rules for each port of each Service: with n endpoints left to choose from, one takes one
// connection of n.
func serviceRules(services []Service) [][]expr.Any {
	var rules [][]expr.Any
	for _, service := range services {
		number := byte(unix.IPPROTO_TCP)
		if service.UDP {
			number = unix.IPPROTO_UDP
		}
		for i, endpoint := range service.Endpoints {
			rules = append(rules, concat(
				protocol(
					number,
				),
				destination(expr.CmpOpEq, netip.PrefixFrom(service.Address.Addr(), 32)),
				port(expr.CmpOpEq, service.Address.Port()),
				oneOf(len(service.Endpoints)-i),
				changeDestination(endpoint),
			))
		}
	}
	return rules
}
