package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// apiServer predicts whether the API server of a kind cluster can be reached from here. kind publishes it on the
// loopback address of the engine's network namespace, and the nodes' own addresses are on a Docker network.
func (h Host) apiServer(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err != nil {
		return "", err
	}
	own, err := h.Addresses()
	if err != nil {
		return "", fmt.Errorf("listing this machine's addresses: %w", err)
	}
	host := h.remote(own)
	// These forward the ports that their containers publish.
	forwards := h.GOOS != "linux" || strings.Contains(info.OperatingSystem, "Docker Desktop") ||
		slices.Contains(info.SecurityOptions, "name=rootless")
	nodes := cmp.Or(os.Getenv("KIND_EXPERIMENTAL_DOCKER_NETWORK"), "kind")
	_, gateways := h.network(ctx, "bridge")
	subnets, ofNodes := h.network(ctx, nodes)
	gateways = append(gateways, ofNodes...)
	// The engine's network namespace has the gateways' addresses.
	shares := slices.ContainsFunc(gateways, func(a netip.Addr) bool { return slices.Contains(own, a) })
	switch {
	case host == "" && forwards:
		return "the Docker engine forwards published ports", nil
	case host == "" && shares:
		return "this machine has the Docker engine's loopback address", nil
	}
	onNetwork := slices.ContainsFunc(own, func(a netip.Addr) bool {
		return slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(a) })
	})
	switch {
	case onNetwork:
		return "this machine is on the nodes' network " + nodes, nil
	case host != "":
		return "", elsewhere(
			"the Docker engine is on %s, and a kind cluster publishes its API server on the loopback address there",
			host)
	case len(gateways) == 0:
		return "", fmt.Errorf("the Docker engine has no network with a gateway: %w", ErrHidden)
	}
	return "", elsewhere(
		"the Docker engine is in another network namespace, " +
			"and a kind cluster publishes its API server on the loopback address there")
}

func elsewhere(format string, args ...any) error {
	return Warn(problem.New(problem.APIServerElsewhere, nil, format, args...))
}

// network returns the subnets and the gateways of a Docker network: none if it does not exist.
func (h Host) network(ctx context.Context, name string) (subnets []netip.Prefix, gateways []netip.Addr) {
	found, err := h.Docker.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	if err != nil {
		return nil, nil
	}
	for _, c := range found.Network.IPAM.Config {
		if c.Subnet.IsValid() {
			subnets = append(subnets, c.Subnet)
		}
		if c.Gateway.IsValid() {
			gateways = append(gateways, c.Gateway)
		}
	}
	return subnets, gateways
}

// remote returns the host of an engine that is reached over the network, or an empty string if that host is this one.
func (h Host) remote(own []netip.Addr) string {
	engine, err := url.Parse(h.Endpoint.Host)
	if err != nil || !slices.Contains([]string{"tcp", "http", "https"}, engine.Scheme) ||
		engine.Hostname() == "localhost" {
		return ""
	}
	if a, err := netip.ParseAddr(engine.Hostname()); err == nil && (a.IsLoopback() || slices.Contains(own, a)) {
		return ""
	}
	return engine.Hostname()
}

// addresses lists the addresses of this process's network namespace.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			own = append(own, prefix.Addr())
		}
	}
	return own, nil
}
