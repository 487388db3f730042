package mesh

import (
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/lesson/params"
)

const faultFilter = "envoy.filters.http.fault"

// Delays tells whether a waypoint delays a Service's requests as wanted: that share, by that much, on those paths.
func Delays(d *Dump, s Service, want params.Fault) (held bool, reason string) {
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
			return false, fmt.Sprintf("the waypoint delays %s, not %s", found.of(want.Path),
				delay{uint64(want.Millionths()), want.Delay}.of(want.Path))
		}
		_, longer := d.delayFor(manager, want.LongerPath())
		switch {
		case want.Exact && longer:
			return false, fmt.Sprintf("the waypoint delays %s as well: %s is a prefix there, not an exact path",
				want.LongerPath(), want.Path)
		case !want.Exact && !longer:
			return false, fmt.Sprintf("the waypoint does not delay %s: %s is an exact path there, not a prefix",
				want.LongerPath(), want.Path)
		}
	}
	return true, ""
}

// DelaysNone tells whether a waypoint delays none of a Service's requests for some paths. A waypoint that has nothing
// for the Service delays nothing.
func DelaysNone(d *Dump, s Service, paths ...string) (gone bool, reason string) {
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

// takes tells whether a route's match covers a path, as far as paths go: conditions on headers count as met.
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

// DelaysNothing tells whether a proxy's routes delay nothing at all.
func DelaysNothing(d *Dump) (none bool, reason string) {
	for _, resource := range append(append([]node{}, d.listeners...), d.routes...) {
		found := ""
		resource.each(func(n node) bool {
			if delay := n.get("typed_per_filter_config", faultFilter, "delay"); delay.exists() &&
				millionths(delay.get("percentage")) > 0 {
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
