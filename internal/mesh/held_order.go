package mesh

import "fmt"

const faultFilter = "envoy.filters.http.fault"

// AuthzBeforeFault tells whether a waypoint judges a Service's requests before it delays any: a request that is denied
// is then answered at once.
func AuthzBeforeFault(d *Dump, s Service) (held bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	for _, manager := range managers {
		rbac, fault := -1, -1
		for i, filter := range manager.get("http_filters").list() {
			switch filter.get("name").str() {
			case rbacFilter:
				if rbac < 0 {
					rbac = i
				}
			case faultFilter:
				fault = i
			}
		}
		switch {
		case rbac < 0:
			return false, fmt.Sprintf("the waypoint has no filter %s for %s", rbacFilter, s)
		case fault < 0:
			return false, fmt.Sprintf("the waypoint has no filter %s for %s", faultFilter, s)
		case fault < rbac:
			return false, fmt.Sprintf("the waypoint's filter %s stands before %s", faultFilter, rbacFilter)
		}
	}
	return true, ""
}

// ServiceGone tells whether a waypoint has nothing for a Service.
func ServiceGone(d *Dump, s Service) (gone bool, reason string) {
	if held, _ := ServiceHeld(d, s); held {
		return false, fmt.Sprintf("the waypoint handles %s", s)
	}
	return true, ""
}

// NoFault tells whether a proxy's routes delay nothing at all.
func NoFault(d *Dump) (none bool, reason string) {
	for _, resource := range append(append([]node{}, d.listeners...), d.routes...) {
		found := ""
		resource.each(func(n node) bool {
			if delay := n.get("typed_per_filter_config", faultFilter, "delay"); delay.exists() && millionths(delay.get("percentage")) > 0 {
				found = delay.text()
			}
			return found == ""
		})
		if found != "" {
			return false, fmt.Sprintf("the proxy delays requests: %s", found)
		}
	}
	return true, ""
}
