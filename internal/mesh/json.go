package mesh

import (
	"encoding/json"
	"strings"
)

// node is a value inside a configuration dump. Reading never fails: what is missing is a node that is empty, as an
// unset field of a protobuf message is. Envoy writes fields under their proto names (filter_chains), Go's protojson
// under their JSON names (filterChains); both are found.
//
// The dump is read as plain JSON, not into Envoy's own types: those would bring in several hundred packages, and would
// refuse extensions that they do not know.
type node struct{ value any }

func (n node) get(path ...string) node {
	for _, name := range path {
		fields, ok := n.value.(map[string]any)
		if !ok {
			return node{}
		}
		value, found := fields[name]
		if !found {
			value = fields[camel(name)]
		}
		n = node{value}
	}
	return n
}

func (n node) exists() bool { return n.value != nil }

func (n node) str() string {
	s, _ := n.value.(string)
	return s
}

// number reads an integer; 64-bit ones are strings in protojson.
func (n node) number() int64 {
	switch v := n.value.(type) {
	case json.Number:
		i, err := v.Int64()
		if err != nil {
			return 0
		}
		return i
	case string:
		i, err := json.Number(v).Int64()
		if err != nil {
			return 0
		}
		return i
	}
	return 0
}

func (n node) list() []node {
	items, _ := n.value.([]any)
	nodes := make([]node, len(items))
	for i, item := range items {
		nodes[i] = node{item}
	}
	return nodes
}

func (n node) strings() []string {
	var all []string
	for _, item := range n.list() {
		all = append(all, item.str())
	}
	return all
}

// fields gives an object's fields by the names they were written with.
func (n node) fields() map[string]any {
	fields, _ := n.value.(map[string]any)
	return fields
}

// each visits every value below and including the node, parents first, until visit returns false for a value, whose
// inside is then left out.
func (n node) each(visit func(node) bool) {
	if !visit(n) {
		return
	}
	switch v := n.value.(type) {
	case map[string]any:
		for _, inner := range v {
			node{inner}.each(visit)
		}
	case []any:
		for _, inner := range v {
			node{inner}.each(visit)
		}
	}
}

// mentions tells whether a string anywhere inside contains text.
func (n node) mentions(text string) bool {
	found := false
	n.each(func(inner node) bool {
		found = found || strings.Contains(inner.str(), text)
		return !found
	})
	return found
}

func camel(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	parts := strings.Split(name, "_")
	for i, part := range parts[1:] {
		if part != "" {
			parts[i+1] = strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, "")
}
