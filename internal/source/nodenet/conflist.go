package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
)

// plugin is one entry of a CNI configuration list, of this daemon or of another program.
type plugin map[string]any

func (p plugin) own() bool { return p["type"] == "ptp" || p["type"] == "portmap" }

// ownPlugins is the daemon's part of the list: a veth pair per pod, addresses from the node's pod CIDRs, host ports.
func ownPlugins(podCIDRs []netip.Prefix, mtu int) []plugin {
	var ranges, routes []any
	for _, cidr := range podCIDRs {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr.String()}})
		dst := "0.0.0.0/0"
		if cidr.Addr().Is6() {
			dst = "::/0"
		}
		routes = append(routes, map[string]any{"dst": dst})
	}
	return []plugin{
		{
			"type": "ptp", "ipMasq": false, "mtu": float64(mtu), // as JSON reads it back
			"ipam": map[string]any{
				// Under /run, so that the leases end with the pods when the node restarts.
				"type": "host-local", "dataDir": "/run/cni-ipam-state", "ranges": ranges, "routes": routes,
			},
		},
		{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
	}
}

// merge returns the list for the file: the plugins of this daemon, then those that other programs (istio-cni) added.
// changed tells whether it differs from the existing list: istio-cni watches the file and would react to a write
// without a change.
func merge(existing []byte, own []plugin) (merged []byte, changed bool, err error) {
	var list map[string]any
	var foreign, had []plugin
	var plugins struct {
		Plugins []plugin `json:"plugins"`
	}
	// A file that does not parse is replaced. An entry without a type cannot run.
	if json.Unmarshal(existing, &list) == nil && json.Unmarshal(existing, &plugins) == nil {
		for _, p := range plugins.Plugins {
			if p.own() {
				had = append(had, p)
			} else if p["type"] != nil {
				foreign = append(foreign, p)
			}
		}
	} else {
		list = nil
	}
	if list == nil {
		list = map[string]any{}
	}
	if reflect.DeepEqual(had, own) {
		return existing, false, nil
	}
	list["cniVersion"] = "1.0.0"
	list["name"] = "lab"
	list["plugins"] = append(own[:len(own):len(own)], foreign...)
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(list); err != nil {
		return nil, false, fmt.Errorf("encoding the CNI configuration: %w", err)
	}
	return out.Bytes(), true, nil
}

// writeConfig updates the file and tells whether it changed. The file is replaced by a rename, because containerd and
// istio-cni read it when its folder changes.
func writeConfig(path string, podCIDRs []netip.Prefix, mtu int) (bool, error) {
	existing, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("reading the CNI configuration: %w", err)
	}
	merged, changed, err := merge(existing, ownPlugins(podCIDRs, mtu))
	if err != nil || !changed {
		return false, err
	}
	// The name does not end in .conf or .conflist, which containerd and istio-cni would read.
	tmp := filepath.Join(filepath.Dir(path), ".10-lab.tmp")
	if err := os.WriteFile(tmp, merged, 0o644); err != nil {
		return false, fmt.Errorf("writing the CNI configuration: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return false, fmt.Errorf("putting the CNI configuration in place: %w", err)
	}
	return true, nil
}
