// Package workload holds the workloads and services that the control plane describes, and routes connections by them.
package workload

import (
	"fmt"
	"net/netip"
	"strings"

	"istio.io/istio/pkg/workloadapi"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/ports"
)

// DefaultTrustDomain is the trust domain of a workload that has none (workload.proto: "may be elided if this is the
// mesh wide default").
const DefaultTrustDomain = "cluster.local"

// Workload is one pod or other endpoint. It is never changed once it is in the store.
type Workload struct {
	UID, Name, Namespace, ServiceAccount, TrustDomain string

	Network   string
	Addresses []netip.Addr
	Hostname  string
	HBONE     bool
	// Shared means that the addresses are the node's, and belong to other workloads as well.
	Shared   bool
	Waypoint *Gateway
	// Services maps the key of each service that the workload serves to its own ports for the service's ports.
	Services map[string]map[uint16]uint16
	Policies []string
	Healthy  bool
	Capacity uint32

	Node, ClusterID, CanonicalName, CanonicalRevision string
	WorkloadName, WorkloadType                        string
	Region, Zone, Subzone                             string
	AppTunnel                                         bool
}

// Identity returns the SPIFFE identity in the workload's certificate.
func (w *Workload) Identity() identity.Identity {
	return identity.Identity{TrustDomain: w.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
}

// Has reports whether a is an address of the workload.
func (w *Workload) Has(a netip.Addr) bool {
	for _, own := range w.Addresses {
		if own == a {
			return true
		}
	}
	return false
}

// Gateway is the address of a waypoint: a hostname with its namespace, or an IP address with its network.
type Gateway struct {
	Namespace, Hostname string
	Network             string
	Address             netip.Addr
	Port                uint16
}

func (g Gateway) String() string {
	if g.Hostname != "" {
		return g.Namespace + "/" + g.Hostname
	}
	return g.Network + "/" + g.Address.String()
}

// Service is a service. It is never changed once it is in the store.
type Service struct {
	Name, Namespace, Hostname string
	VIPs                      []VIP
	// Ports maps each port to its target port, which is 0 if each endpoint has its own.
	Ports         map[uint16]uint16
	Waypoint      *Gateway
	Weighted      []WeightedGateway
	SANs          []string
	Canonical     bool
	NamespaceOnly bool

	Mode         workloadapi.LoadBalancing_Mode
	Preferences  []workloadapi.LoadBalancing_Scope
	AllowAll     bool // unhealthy endpoints as well
	LoadBalanced bool
}

// Key is the name of a service in the store, and of the xDS resource.
func (s *Service) Key() string { return s.Namespace + "/" + s.Hostname }

// VIP is an address of a service in a network.
type VIP struct {
	Network string
	Address netip.Addr
}

// WeightedGateway is one of several waypoints that share a service's connections.
type WeightedGateway struct {
	Gateway Gateway
	Weight  uint32
}

// ParseWorkload converts a workload from the control plane. It returns an error for one that the proxy cannot serve.
func ParseWorkload(w *workloadapi.Workload) (*Workload, error) {
	if w.GetUid() == "" {
		return nil, fmt.Errorf("workload %s/%s has no uid", w.GetNamespace(), w.GetName())
	}
	out := &Workload{
		UID: w.GetUid(), Name: w.GetName(), Namespace: w.GetNamespace(),
		ServiceAccount: or(w.GetServiceAccount(), "default"), TrustDomain: or(w.GetTrustDomain(), DefaultTrustDomain),
		Network: w.GetNetwork(), Hostname: w.GetHostname(),
		HBONE:    w.GetTunnelProtocol() == workloadapi.TunnelProtocol_HBONE,
		Shared:   w.GetNetworkMode() == workloadapi.NetworkMode_HOST_NETWORK,
		Policies: w.GetAuthorizationPolicies(), Healthy: w.GetStatus() == workloadapi.WorkloadStatus_HEALTHY,
		Capacity: 1,
		Node:     w.GetNode(), ClusterID: w.GetClusterId(),
		CanonicalName: w.GetCanonicalName(), CanonicalRevision: w.GetCanonicalRevision(),
		WorkloadName: w.GetWorkloadName(), WorkloadType: strings.ToLower(w.GetWorkloadType().String()),
		Region: w.GetLocality().GetRegion(), Zone: w.GetLocality().GetZone(), Subzone: w.GetLocality().GetSubzone(),
		Services: map[string]map[uint16]uint16{},
	}
	if c := w.GetCapacity(); c != nil {
		out.Capacity = c.GetValue()
	}
	if w.GetApplicationTunnel() != nil {
		out.AppTunnel = true
	}
	for _, raw := range w.GetAddresses() {
		a, err := address(raw)
		if err != nil {
			return nil, fmt.Errorf("workload %s: %w", out.UID, err)
		}
		out.Addresses = append(out.Addresses, a)
	}
	var err error
	if out.Waypoint, err = parseGateway(w.GetWaypoint()); err != nil {
		return nil, fmt.Errorf("workload %s: %w", out.UID, err)
	}
	for key, list := range w.GetServices() {
		targets, err := parsePorts(list.GetPorts())
		if err != nil {
			return nil, fmt.Errorf("workload %s: service %s: %w", out.UID, key, err)
		}
		out.Services[key] = targets
	}
	return out, nil
}

// ParseService converts a service from the control plane.
func ParseService(s *workloadapi.Service) (*Service, error) {
	out := &Service{
		Name: s.GetName(), Namespace: s.GetNamespace(), Hostname: s.GetHostname(),
		SANs: s.GetSubjectAltNames(), Canonical: s.GetCanonical(),
		NamespaceOnly: s.GetVisibility() == workloadapi.Service_NAMESPACE,
		Mode:          s.GetLoadBalancing().GetMode(), Preferences: s.GetLoadBalancing().GetRoutingPreference(),
		AllowAll:     s.GetLoadBalancing().GetHealthPolicy() == workloadapi.LoadBalancing_ALLOW_ALL,
		LoadBalanced: s.GetLoadBalancing() != nil,
	}
	if out.Hostname == "" {
		return nil, fmt.Errorf("service %s/%s has no hostname", out.Namespace, out.Name)
	}
	for _, na := range s.GetAddresses() {
		if l := na.GetLength(); na.Length != nil && int(l) != len(na.GetAddress())*8 {
			continue // a range of addresses, used for egress only
		}
		a, err := address(na.GetAddress())
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", out.Key(), err)
		}
		out.VIPs = append(out.VIPs, VIP{Network: na.GetNetwork(), Address: a})
	}
	var err error
	if out.Ports, err = parsePorts(s.GetPorts()); err != nil {
		return nil, fmt.Errorf("service %s: %w", out.Key(), err)
	}
	if out.Waypoint, err = parseGateway(s.GetWaypoint()); err != nil {
		return nil, fmt.Errorf("service %s: %w", out.Key(), err)
	}
	for _, ww := range s.GetWeightedWaypoints() {
		g, err := parseGateway(ww.GetDestination())
		if err != nil || g == nil {
			return nil, fmt.Errorf("service %s: weighted waypoint: %w", out.Key(), err)
		}
		out.Weighted = append(out.Weighted, WeightedGateway{Gateway: *g, Weight: ww.GetWeight()})
	}
	return out, nil
}

func parseGateway(g *workloadapi.GatewayAddress) (*Gateway, error) {
	if g == nil {
		return nil, nil
	}
	port, err := ports.Parse(g.GetHboneMtlsPort())
	if err != nil {
		return nil, fmt.Errorf("waypoint: %w", err)
	}
	if h := g.GetHostname(); h != nil {
		return &Gateway{Namespace: h.GetNamespace(), Hostname: h.GetHostname(), Port: port}, nil
	}
	a, err := address(g.GetAddress().GetAddress())
	if err != nil {
		return nil, fmt.Errorf("waypoint: %w", err)
	}
	return &Gateway{Network: g.GetAddress().GetNetwork(), Address: a, Port: port}, nil
}

func parsePorts(list []*workloadapi.Port) (map[uint16]uint16, error) {
	targets := make(map[uint16]uint16, len(list))
	for _, p := range list {
		from, err := ports.Parse(p.GetServicePort())
		if err != nil {
			return nil, err
		}
		to, err := ports.Parse(p.GetTargetPort())
		if err != nil {
			return nil, err
		}
		targets[from] = to
	}
	return targets, nil
}

func address(b []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("%d bytes are not an IP address", len(b))
	}
	return a.Unmap(), nil
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
