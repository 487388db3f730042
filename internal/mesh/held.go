package mesh

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/lesson/params"
)

// Service is a Service whose traffic a waypoint handles.
type Service struct {
	Namespace, Name string
	// Port is the Service's port, not the pod's.
	Port int
}

// Host is the Service's name in Istio's configuration. The cluster domain is Istio's
// default, which the lab does not change.
func (s Service) Host() string { return s.Name + "." + s.Namespace + ".svc.cluster.local" }

func (s Service) String() string { return fmt.Sprintf("%s:%d", s.Host(), s.Port) }

// Policy is an ALLOW policy by identity and method. Without principals it denies every request.
type Policy struct {
	// Namespace and Name are the AuthorizationPolicy's.
	Namespace, Name string
	// Principals are written without spiffe://, such as cluster.local/ns/default/sa/appa.
	Principals []string
	Methods    []string
}

// The functions below look into a waypoint's or gateway's configuration and answer
// whether it holds what was applied, and if not, what it holds instead. They are pure:
// the same answer comes from a proxy's dump and from what istiod would send it.

// ServiceHeld tells whether a waypoint handles a Service's HTTP traffic.
func ServiceHeld(d *Dump, s Service) (held bool, reason string) {
	_, reason = d.serviceManagers(s)
	return reason == "", reason
}

// GatewayHeld tells whether an ingress gateway sends a Service's traffic to a waypoint.
// Without the label istio.io/ingress-use-waypoint, or before the waypoint is bound, its
// endpoints are the Service's pods, and everything the waypoint enforces is walked
// around. waypoints are the addresses that count as the waypoint's; none means any.
func GatewayHeld(d *Dump, s Service, waypoints []string) (held bool, reason string) {
	ends, reason := d.gatewayEnds(s)
	if reason != "" {
		return false, reason
	}
	for _, e := range ends {
		waypoint := e.get("metadata", "filter_metadata", "envoy.filters.listener.original_dst", "waypoint").str()
		if waypoint == "" {
			return false, fmt.Sprintf("the gateway sends requests for %s straight to %s, around the waypoint", s, endpointName(e))
		}
		host, _, _ := strings.Cut(waypoint, ":")
		if strings.HasPrefix(waypoint, "[") {
			host, _, _ = strings.Cut(waypoint[1:], "]")
		}
		if len(waypoints) > 0 && !slices.Contains(waypoints, host) {
			return false, fmt.Sprintf("the gateway sends requests for %s to a waypoint at %s, which is none of %s", s, waypoint, strings.Join(waypoints, ", "))
		}
	}
	return true, ""
}

// GatewayGone tells whether an ingress gateway sends a Service's traffic straight to
// its pods.
func GatewayGone(d *Dump, s Service) (gone bool, reason string) {
	ends, reason := d.gatewayEnds(s)
	if reason != "" {
		return false, reason
	}
	for _, e := range ends {
		if waypoint := e.get("metadata", "filter_metadata", "envoy.filters.listener.original_dst", "waypoint").str(); waypoint != "" {
			return false, fmt.Sprintf("the gateway still sends requests for %s to the waypoint at %s", s, waypoint)
		}
	}
	return true, ""
}

// RouteHeld tells whether an ingress gateway has a route from a host name to a Service.
func RouteHeld(d *Dump, hostname string, s Service) (held bool, reason string) {
	cluster := fmt.Sprintf("outbound|%d||%s", s.Port, s.Host())
	for _, config := range d.routes {
		for _, host := range config.get("virtual_hosts").list() {
			domains := host.get("domains").strings()
			if !slices.Contains(domains, hostname) && !slices.Contains(domains, hostname+":*") {
				continue
			}
			for _, r := range host.get("routes").list() {
				if r.get("route").mentions(cluster) {
					return true, ""
				}
			}
			return false, fmt.Sprintf("the gateway knows %s, but its routes do not lead to %s", hostname, s)
		}
	}
	return false, fmt.Sprintf("the gateway has no route for %s", hostname)
}

// FaultHeld tells whether a waypoint delays a Service's requests as wanted: that share, by that much, on those paths.
func FaultHeld(d *Dump, s Service, want params.Fault) (held bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	for _, manager := range managers {
		found, delayed := d.delayFor(manager, want.Path)
		if !delayed && want.Millionths() == 0 {
			continue
		}
		if !delayed {
			return false, fmt.Sprintf("the waypoint does not delay %s of %s", want.Path, s)
		}
		if found != (delay{uint64(want.Millionths()), want.Delay}) {
			return false, fmt.Sprintf("the waypoint delays %s, not %s", found.of(want.Path), delay{uint64(want.Millionths()), want.Delay}.of(want.Path))
		}
		_, longer := d.delayFor(manager, want.LongerPath())
		switch {
		case want.Exact && longer:
			return false, fmt.Sprintf("the waypoint delays %s as well: %s is a prefix there, not an exact path", want.LongerPath(), want.Path)
		case !want.Exact && !longer:
			return false, fmt.Sprintf("the waypoint does not delay %s: %s is an exact path there, not a prefix", want.LongerPath(), want.Path)
		}
	}
	return true, ""
}

// FaultGone tells whether a waypoint delays none of a Service's requests for some paths. A waypoint that has nothing for
// the Service delays nothing.
func FaultGone(d *Dump, s Service, paths ...string) (gone bool, reason string) {
	managers, _ := d.serviceManagers(s)
	for _, manager := range managers {
		for _, path := range paths {
			if found, delayed := d.delayFor(manager, path); delayed && found.millionths > 0 {
				return false, fmt.Sprintf("the waypoint still delays %s", found.of(path))
			}
		}
	}
	return true, ""
}

// delay is what a proxy's fault filter does on a route.
type delay struct {
	millionths uint64
	length     time.Duration
}

func (f delay) of(path string) string {
	return fmt.Sprintf("%v %% of %s by %s", float64(f.millionths)/10000, path, f.length)
}

// delayFor gives the delay on the route that a request for a path takes.
func (d *Dump) delayFor(manager node, path string) (delay, bool) {
	for _, host := range d.virtualHosts(manager) {
		for _, r := range host.get("routes").list() {
			if !takes(r.get("match"), path) {
				continue
			}
			found := r.get("typed_per_filter_config", faultFilter, "delay")
			if !found.exists() {
				break
			}
			length, err := time.ParseDuration(found.get("fixed_delay").str())
			if err != nil {
				length = 0
			}
			return delay{millionths(found.get("percentage")), length}, true
		}
	}
	return delay{}, false
}

// takes tells whether a route's match covers a path, as far as paths go: conditions on
// headers count as met.
func takes(match node, path string) bool {
	if exact := match.get("path"); exact.exists() {
		return exact.str() == path
	}
	if prefix := match.get("path_separated_prefix").str(); prefix != "" {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	}
	if prefix := match.get("prefix"); prefix.exists() {
		return strings.HasPrefix(path, prefix.str())
	}
	return false
}

// millionths reads an envoy.type.v3.FractionalPercent, whose denominator is HUNDRED where none is written.
func millionths(p node) uint64 {
	scale := int64(10000)
	switch p.get("denominator").str() {
	case "TEN_THOUSAND":
		scale = 100
	case "MILLION":
		scale = 1
	}
	return uint64(max(p.get("numerator").number(), 0) * scale)
}

// serviceManagers gives the HTTP connection managers with which a waypoint handles a
// Service, or why there is none. Istio names the chain of a Service's port
// inbound-vip|<port>|<protocol>|<host>.
func (d *Dump) serviceManagers(s Service) (managers []node, reason string) {
	other := ""
	for _, l := range d.listeners {
		for _, chain := range filterChains(l) {
			name := chain.get("name").str()
			if !strings.HasPrefix(name, fmt.Sprintf("inbound-vip|%d|", s.Port)) || !strings.HasSuffix(name, "|"+s.Host()) {
				continue
			}
			found := false
			for _, filter := range chain.get("filters").list() {
				if filter.get("name").str() == httpManager {
					managers, found = append(managers, filter.get("typed_config")), true
				}
			}
			if !found {
				other = name
			}
		}
	}
	switch {
	case len(managers) > 0:
		return managers, ""
	case other != "":
		return nil, fmt.Sprintf("the waypoint handles %s as plain TCP (%s): its Service port lacks appProtocol http", s, other)
	case len(d.warming) > 0:
		return nil, fmt.Sprintf("the waypoint is still warming up its listeners %s", strings.Join(d.warming, ", "))
	case len(d.listeners) == 0:
		return nil, "the waypoint has no listeners yet"
	default:
		return nil, fmt.Sprintf("the waypoint has nothing for %s", s)
	}
}

// virtualHosts gives those of a connection manager, be they inline or in a route
// configuration of their own.
func (d *Dump) virtualHosts(manager node) []node {
	if inline := manager.get("route_config"); inline.exists() {
		return inline.get("virtual_hosts").list()
	}
	name := manager.get("rds", "route_config_name").str()
	for _, config := range d.routes {
		if name != "" && config.get("name").str() == name {
			return config.get("virtual_hosts").list()
		}
	}
	return nil
}

// gatewayEnds gives the endpoints a gateway has for a Service.
func (d *Dump) gatewayEnds(s Service) (ends []node, reason string) {
	cluster := fmt.Sprintf("outbound|%d||%s", s.Port, s.Host())
	known := false
	for _, assignment := range d.endpoints {
		if assignment.get("cluster_name").str() != cluster {
			continue
		}
		known = true
		for _, locality := range assignment.get("endpoints").list() {
			ends = append(ends, locality.get("lb_endpoints").list()...)
		}
	}
	switch {
	case !known:
		return nil, fmt.Sprintf("the gateway does not know %s", s)
	case len(ends) == 0:
		return nil, fmt.Sprintf("the gateway has no endpoint for %s", s)
	}
	return ends, ""
}

func endpointName(e node) string {
	address := e.get("endpoint", "address")
	if id := address.get("envoy_internal_address", "endpoint_id").str(); id != "" {
		return id
	}
	socket := address.get("socket_address")
	return fmt.Sprintf("%s:%d", socket.get("address").str(), socket.get("port_value").number())
}

// text writes a node for a message.
func (n node) text() string {
	out, err := json.Marshal(n.value)
	if err != nil {
		return fmt.Sprint(n.value)
	}
	return string(out)
}
