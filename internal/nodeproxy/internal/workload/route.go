package workload

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"istio.io/istio/pkg/workloadapi"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/ports"
)

// Route says where an outbound connection goes.
type Route struct {
	// Dial is the next hop.
	Dial netip.AddrPort
	// Tunnel is the authority of the CONNECT request; it is invalid for plain TCP.
	Tunnel netip.AddrPort
	// Peers are the identities that the next hop may have.
	Peers []identity.Identity
	// Destination is the workload at Dial: the waypoint, if there is one. It is nil if unknown.
	Destination *Workload
	// Service is the service that the client connects to; it is nil if the destination is not a service.
	Service *Service
}

// HBONE reports whether the route is a tunnel.
func (r *Route) HBONE() bool { return r.Tunnel.IsValid() }

// ErrNoHealthyUpstream means that a service has no endpoint to send to.
var ErrNoHealthyUpstream = errors.New("no healthy upstream")

// ErrOtherNetwork means that a destination is on another network, which the proxy does not support.
var ErrOtherNetwork = errors.New("destination is on another network: multi-network is not supported")

// Route returns the route of a connection from src to dst.
//
// A connection to a service with a waypoint goes to the waypoint, and its tunnel names the address that the client
// used. One to a service without a waypoint goes to an endpoint. One to a pod's own address goes to the pod's waypoint,
// if it has one. Every other connection is plain TCP to dst.
func (s *Store) Route(src *Workload, dst netip.AddrPort) (*Route, error) {
	svc := s.ServiceByVIP(src.Network, dst.Addr(), src.Namespace)
	// A workload's own address takes precedence over a service's; an address can be both only by mistake.
	own := s.ByAddress(src.Network, dst.Addr())
	if own == nil && svc != nil {
		if g := pickWaypoint(svc); g != nil {
			return s.viaWaypoint(src, dst, *g, svc)
		}
		if svc.LoadBalanced && svc.Mode == workloadapi.LoadBalancing_PASSTHROUGH {
			return &Route{Dial: dst, Service: svc}, nil
		}
		return s.viaEndpoint(src, dst, svc)
	}
	if own == nil {
		return &Route{Dial: dst}, nil
	}
	// A waypoint's own traffic to the pods behind it must not return to the waypoint.
	if own.Waypoint != nil && !s.isWaypoint(src, *own.Waypoint) {
		return s.viaWaypoint(src, dst, *own.Waypoint, nil)
	}
	return direct(own, dst, nil)
}

func (s *Store) viaEndpoint(src *Workload, dst netip.AddrPort, svc *Service) (*Route, error) {
	w, port, err := s.pick(src, svc, dst.Port(), false)
	if err != nil {
		return nil, err
	}
	if w.Network != src.Network {
		return nil, fmt.Errorf("service %s: %w", svc.Key(), ErrOtherNetwork)
	}
	a, err := reachable(w)
	if err != nil {
		return nil, err
	}
	return direct(w, netip.AddrPortFrom(a, port), svc)
}

func direct(w *Workload, to netip.AddrPort, svc *Service) (*Route, error) {
	r := &Route{Dial: to, Destination: w, Service: svc}
	if w.HBONE {
		r.Dial = netip.AddrPortFrom(to.Addr(), ports.HBONE)
		r.Tunnel = to
		r.Peers = peers(w, svc)
	}
	return r, nil
}

func (s *Store) viaWaypoint(src *Workload, dst netip.AddrPort, g Gateway, svc *Service) (*Route, error) {
	w, gateway, port, err := s.gateway(src, g)
	if err != nil {
		return nil, err
	}
	if w.Network != src.Network {
		return nil, fmt.Errorf("waypoint %s: %w", g, ErrOtherNetwork)
	}
	a, err := reachable(w)
	if err != nil {
		return nil, fmt.Errorf("waypoint %s: %w", g, err)
	}
	return &Route{
		Dial: netip.AddrPortFrom(a, port), Tunnel: dst,
		Peers: peers(w, gateway), Destination: w, Service: svc,
	}, nil
}

// gateway returns a pod of the waypoint, the waypoint's service, which may be nil, and the port.
func (s *Store) gateway(src *Workload, g Gateway) (*Workload, *Service, uint16, error) {
	var svc *Service
	var w *Workload
	if g.Hostname != "" {
		svc = s.Service(g.Namespace, g.Hostname)
		if svc == nil {
			return nil, nil, 0, fmt.Errorf("unknown waypoint: %s not found", g)
		}
	} else {
		if svc = s.ServiceByVIP(g.Network, g.Address, src.Namespace); svc == nil {
			w = s.ByAddress(g.Network, g.Address)
		}
	}
	switch {
	case svc != nil:
		w, port, err := s.pick(src, svc, g.Port, true)
		if err != nil {
			return nil, nil, 0, fmt.Errorf("unknown waypoint: %s: %w", g, err)
		}
		return w, svc, port, nil
	case w != nil:
		return w, nil, g.Port, nil
	}
	return nil, nil, 0, fmt.Errorf("unknown waypoint: %s not found", g)
}

// isWaypoint reports whether w is a pod of the waypoint g.
func (s *Store) isWaypoint(w *Workload, g Gateway) bool {
	svc := s.Service(g.Namespace, g.Hostname)
	if g.Hostname == "" {
		if svc = s.ServiceByVIP(g.Network, g.Address, w.Namespace); svc == nil {
			return w.Network == g.Network && w.Has(g.Address)
		}
	}
	if svc == nil {
		return false
	}
	_, ok := w.Services[svc.Key()]
	return ok
}

// pick chooses an endpoint of a service at random, weighted by capacity, and maps the port.
func (s *Store) pick(src *Workload, svc *Service, port uint16, waypoint bool) (*Workload, uint16, error) {
	target, known := svc.Ports[port]
	type candidate struct {
		w    *Workload
		port uint16
	}
	var all []candidate
	for _, w := range s.Endpoints(svc) {
		mapped := w.Services[svc.Key()][port]
		if mapped == 0 {
			mapped = target
		}
		if mapped == 0 && waypoint && w.AppTunnel {
			mapped = port
		}
		usable := mapped != 0 && (known || waypoint) && (w.Healthy || svc.AllowAll) && w.Capacity > 0
		if usable && (len(w.Addresses) > 0 || w.Hostname != "") {
			all = append(all, candidate{w, mapped})
		}
	}
	if svc.LoadBalanced && len(svc.Preferences) > 0 {
		best := 0
		ranked := all[:0:0]
		for _, c := range all {
			r := rank(src, c.w, svc.Preferences)
			if svc.Mode == workloadapi.LoadBalancing_STRICT && r < len(svc.Preferences) {
				continue
			}
			if r > best {
				best, ranked = r, ranked[:0]
			}
			if r == best {
				ranked = append(ranked, c)
			}
		}
		all = ranked
	}
	var sum uint64
	for _, c := range all {
		sum += uint64(c.w.Capacity)
	}
	if sum == 0 {
		return nil, 0, fmt.Errorf("%w: %s port %d", ErrNoHealthyUpstream, svc.Key(), port)
	}
	at := rand.Uint64N(sum)
	for _, c := range all {
		if at < uint64(c.w.Capacity) {
			return c.w, c.port, nil
		}
		at -= uint64(c.w.Capacity)
	}
	return nil, 0, fmt.Errorf("%w: %s port %d", ErrNoHealthyUpstream, svc.Key(), port)
}

// rank counts the preferences that w meets, in order, up to the first that it does not.
func rank(src, w *Workload, prefs []workloadapi.LoadBalancing_Scope) int {
	for i, p := range prefs {
		same := true
		switch p {
		case workloadapi.LoadBalancing_REGION:
			same = src.Region == w.Region
		case workloadapi.LoadBalancing_ZONE:
			same = src.Zone == w.Zone
		case workloadapi.LoadBalancing_SUBZONE:
			same = src.Subzone == w.Subzone
		case workloadapi.LoadBalancing_NODE:
			same = src.Node == w.Node
		case workloadapi.LoadBalancing_CLUSTER:
			same = src.ClusterID == w.ClusterID
		case workloadapi.LoadBalancing_NETWORK:
			same = src.Network == w.Network
		}
		if !same {
			return i
		}
	}
	return len(prefs)
}

func pickWaypoint(svc *Service) *Gateway {
	var sum uint64
	for _, w := range svc.Weighted {
		sum += uint64(w.Weight)
	}
	if sum == 0 {
		return svc.Waypoint
	}
	at := rand.Uint64N(sum)
	for i, w := range svc.Weighted {
		if at < uint64(w.Weight) {
			return &svc.Weighted[i].Gateway
		}
		at -= uint64(w.Weight)
	}
	return svc.Waypoint
}

// reachable returns the address of a workload to dial.
func reachable(w *Workload) (netip.Addr, error) {
	for _, a := range w.Addresses {
		if a.Is4() {
			return a, nil
		}
	}
	return netip.Addr{},
		fmt.Errorf("workload %s has no IPv4 address: IPv6 and workloads by hostname are not supported", w.UID)
}

// peers returns the identities that a next hop may have: the workload's own, and those that the service declares.
func peers(w *Workload, svc *Service) []identity.Identity {
	ids := []identity.Identity{w.Identity()}
	if svc != nil {
		for _, san := range svc.SANs {
			if id, err := identity.Parse(san); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
