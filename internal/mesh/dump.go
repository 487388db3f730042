package mesh

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Dump is the configuration that one proxy holds.
type Dump struct {
	// listeners and routes are in the proxy's order, dynamic ones first; only what is active is here.
	listeners, routes, endpoints []node
	// warming are the names of listeners that the proxy has but does not serve yet.
	warming []string
	// Rejections are the resources whose latest version the proxy refused.
	Rejections []Rejection
	// Draining counts the proxy's older listeners and filter chains that still serve the connections made before they
	// were replaced. It is no part of /config_dump.
	Draining int
}

// Rejection is a resource that the proxy refused (a NACK); it goes on with the version it had before.
type Rejection struct {
	// Resource is listener, route, cluster or endpoint, and the resource's name.
	Resource string
	// Details are Envoy's error message.
	Details string
	// At is when it was last refused.
	At time.Time
}

// ParseDump reads what Envoy's admin endpoint /config_dump answers, with or without a mask, and what istiod's debug
// endpoint of the same name does.
func ParseDump(data []byte) (*Dump, error) {
	root, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("reading a configuration dump: %w", err)
	}
	if !root.get("configs").exists() {
		return nil, fmt.Errorf("reading a configuration dump: it has no configs: %.80s", data)
	}
	d := &Dump{}
	for _, section := range root.get("configs").list() {
		switch kind := section.get("@type").str(); kind[strings.LastIndexByte(kind, '.')+1:] {
		case "ListenersConfigDump":
			d.addListeners(section)
		case "RoutesConfigDump":
			d.addPlain(&d.routes, section, "route", "route_config", "dynamic_route_configs", "static_route_configs")
		case "EndpointsConfigDump":
			d.addPlain(&d.endpoints, section, "endpoint", "endpoint_config", "dynamic_endpoint_configs",
				"static_endpoint_configs")
		case "ClustersConfigDump":
			for _, list := range []string{"dynamic_active_clusters", "dynamic_warming_clusters"} {
				for _, c := range section.get(list).list() {
					d.addRejection("cluster", c)
				}
			}
		}
	}
	slices.SortStableFunc(d.Rejections, func(a, b Rejection) int { return cmp.Compare(a.Resource, b.Resource) })
	return d, nil
}

// DumpOf makes a Dump of xDS resources in protojson, as istiod sends them: what a proxy would hold after accepting
// them.
func DumpOf(listeners, routes, endpoints []json.RawMessage) (*Dump, error) {
	d := &Dump{}
	for _, kind := range []struct {
		raw  []json.RawMessage
		into *[]node
	}{{listeners, &d.listeners}, {routes, &d.routes}, {endpoints, &d.endpoints}} {
		for _, raw := range kind.raw {
			resource, err := decode(raw)
			if err != nil {
				return nil, fmt.Errorf("reading an xDS resource: %w", err)
			}
			*kind.into = append(*kind.into, resource)
		}
	}
	return d, nil
}

func decode(data []byte) (node, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	// 64-bit numbers must not pass through floating point.
	decoder.UseNumber()
	var n node
	err := decoder.Decode(&n.value)
	return n, err
}

func (d *Dump) addListeners(section node) {
	for _, l := range section.get("dynamic_listeners").list() {
		active := l.get("active_state", "listener")
		if active.exists() {
			d.listeners = append(d.listeners, active)
		} else if l.get("warming_state").exists() {
			d.warming = append(d.warming, l.get("name").str())
		}
		d.addRejection("listener", l)
	}
	for _, l := range section.get("static_listeners").list() {
		if l.get("listener").exists() {
			d.listeners = append(d.listeners, l.get("listener"))
		}
	}
}

// addPlain takes the resources named field out of the lists of a section.
func (d *Dump) addPlain(into *[]node, section node, kind, field string, lists ...string) {
	for _, list := range lists {
		for _, item := range section.get(list).list() {
			if resource := item.get(field); resource.exists() {
				*into = append(*into, resource)
			}
			d.addRejection(kind, item)
		}
	}
}

func (d *Dump) addRejection(kind string, item node) {
	state := item.get("error_state")
	if !state.exists() {
		return
	}
	failed := state.get("failed_configuration")
	name := cmp.Or(item.get("name").str(), failed.get("name").str(), failed.get("cluster_name").str(),
		item.get("route_config", "name").str(), item.get("cluster", "name").str())
	at, err := time.Parse(time.RFC3339Nano, state.get("last_update_attempt").str())
	if err != nil {
		at = time.Time{} // not given: the rejection counts all the same
	}
	refused := Rejection{Resource: strings.TrimSpace(kind + " " + name), Details: state.get("details").str(), At: at}
	// Envoy lists a listener that it never accepted twice: once under its name, and once without name or time.
	for i, known := range d.Rejections {
		if known.Resource == refused.Resource {
			if refused.At.After(known.At) {
				d.Rejections[i] = refused
			}
			return
		}
	}
	d.Rejections = append(d.Rejections, refused)
}
