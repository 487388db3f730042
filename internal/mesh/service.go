package mesh

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Service is a Service whose traffic a waypoint handles.
type Service struct {
	Namespace, Name string
	// Port is the Service's port, not the pod's.
	Port int
}

// Host is the Service's name in Istio's configuration. The cluster domain is Istio's default, which the lab does not
// change.
func (s Service) Host() string { return s.Name + "." + s.Namespace + ".svc.cluster.local" }

func (s Service) String() string { return fmt.Sprintf("%s:%d", s.Host(), s.Port) }

// The functions below and those in delay.go and policy.go tell whether the configuration of a waypoint or a gateway
// says what was applied, and if not, what it says instead. They are pure: the answer is the same for a proxy's dump and
// for what istiod would send it.

// HandlesService tells whether a waypoint handles a Service's HTTP traffic.
func HandlesService(d *Dump, s Service) (held bool, reason string) {
	_, reason = d.serviceManagers(s)
	return reason == "", reason
}

// HandlesNothingFor tells whether a waypoint has nothing for a Service.
func HandlesNothingFor(d *Dump, s Service) (gone bool, reason string) {
	if held, _ := HandlesService(d, s); held {
		return false, fmt.Sprintf("the waypoint handles %s", s)
	}
	return true, ""
}

// SendsToWaypoint tells whether an ingress gateway sends a Service's traffic to a waypoint. Without the label
// istio.io/ingress-use-waypoint, or before the waypoint is bound, its endpoints are the Service's pods, and nothing of
// what the waypoint enforces applies. waypoints are the addresses that count as the waypoint's; none means any.
func SendsToWaypoint(d *Dump, s Service, waypoints []string) (held bool, reason string) {
	ends, reason := d.gatewayEnds(s)
	if reason != "" {
		return false, reason
	}
	for _, e := range ends {
		waypoint := e.get("metadata", "filter_metadata", "envoy.filters.listener.original_dst", "waypoint").str()
		if waypoint == "" {
			return false, fmt.Sprintf("the gateway sends requests for %s straight to %s, around the waypoint", s,
				endpointName(e))
		}
		host, _, _ := strings.Cut(waypoint, ":")
		if strings.HasPrefix(waypoint, "[") {
			host, _, _ = strings.Cut(waypoint[1:], "]")
		}
		if len(waypoints) > 0 && !slices.Contains(waypoints, host) {
			return false, fmt.Sprintf("the gateway sends requests for %s to a waypoint at %s, which is none of %s", s,
				waypoint, strings.Join(waypoints, ", "))
		}
	}
	return true, ""
}

// countsUnready tells whether an ingress gateway counts every endpoint of a Service as not ready, so that it answers
// each request for the Service with 503. istiod says which are ready; Envoy shows it in its dump of endpoints.
func countsUnready(d *Dump, s Service) (unready bool, reason string) {
	ends, reason := d.gatewayEnds(s)
	if reason != "" {
		return false, ""
	}
	var list []string
	for _, e := range ends {
		if e.get("health_status").str() != "UNHEALTHY" {
			return false, ""
		}
		list = append(list, endpointName(e))
	}
	return true, fmt.Sprintf("the gateway counts every endpoint for %s as not ready: %s", s, strings.Join(list, ", "))
}

// SendsToPods tells whether an ingress gateway sends a Service's traffic straight to its pods.
func SendsToPods(d *Dump, s Service) (gone bool, reason string) {
	ends, reason := d.gatewayEnds(s)
	if reason != "" {
		return false, reason
	}
	for _, e := range ends {
		if waypoint := e.get("metadata", "filter_metadata", "envoy.filters.listener.original_dst", "waypoint").
			str(); waypoint != "" {
			return false, fmt.Sprintf("the gateway still sends requests for %s to the waypoint at %s", s, waypoint)
		}
	}
	return true, ""
}

// RoutesTo tells whether an ingress gateway has a route from a host name to a Service.
func RoutesTo(d *Dump, hostname string, s Service) (held bool, reason string) {
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
			return false, fmt.Sprintf("the gateway has a virtual host for %s, but its routes do not lead to %s",
				hostname, s)
		}
	}
	return false, fmt.Sprintf("the gateway has no route for %s", hostname)
}

// serviceManagers gives the HTTP connection managers with which a waypoint handles a Service, or why there is none.
// Istio names the chain of a Service's port inbound-vip|<port>|<protocol>|<host>.
func (d *Dump) serviceManagers(s Service) (managers []node, reason string) {
	other := ""
	for _, l := range d.listeners {
		for _, chain := range filterChains(l) {
			name := chain.get("name").str()
			if !strings.HasPrefix(name, fmt.Sprintf("inbound-vip|%d|", s.Port)) ||
				!strings.HasSuffix(name, "|"+s.Host()) {
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
		return nil, fmt.Sprintf("the waypoint handles %s as plain TCP (%s): its Service port lacks appProtocol http", s,
			other)
	case len(d.warming) > 0:
		return nil, fmt.Sprintf("the waypoint does not serve its listeners yet (warming): %s",
			strings.Join(d.warming, ", "))
	case len(d.listeners) == 0:
		return nil, "the waypoint has no listeners yet"
	default:
		return nil, fmt.Sprintf("the waypoint has nothing for %s", s)
	}
}

// virtualHosts gives those of a connection manager, be they inline or in a route configuration of their own.
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
