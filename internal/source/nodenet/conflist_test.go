package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func podCIDRs() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")} }

func TestWriteConfigOnlyOnChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "10-lab.conflist")
	for i, want := range []struct {
		mtu     int
		changed bool
	}{{1500, true}, {1500, false}, {1400, true}, {1400, false}} {
		changed, err := writeConfig(path, podCIDRs(), want.mtu)
		if err != nil {
			t.Fatal(err)
		}
		if changed != want.changed {
			t.Errorf("write %d (MTU %d): changed = %t, want %t", i, want.mtu, changed, want.changed)
		}
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 {
		t.Errorf("the folder holds %v, want only the configuration", left)
	}
}

// istio-cni appends itself to the list. It must stay there, whether our own part changes or not.
func TestChainedPluginStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "10-lab.conflist")
	if _, err := writeConfig(path, podCIDRs(), 1500); err != nil {
		t.Fatal(err)
	}
	list := read(t, path)
	list["plugins"] = append(list["plugins"].([]any), map[string]any{"type": "istio-cni", "log_level": "info"})
	list["cniVersion"] = "1.1.0"
	raw, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}

	changed, err := writeConfig(path, podCIDRs(), 1500)
	if err != nil || changed {
		t.Errorf("with a chained plugin and nothing of ours changed: changed = %t, err = %v", changed, err)
	}
	changed, err = writeConfig(path, podCIDRs(), 1400)
	if err != nil || !changed {
		t.Errorf("with a chained plugin and our MTU changed: changed = %t, err = %v", changed, err)
	}
	var types []string
	for _, p := range read(t, path)["plugins"].([]any) {
		types = append(types, p.(map[string]any)["type"].(string))
	}
	if len(types) != 3 || types[0] != "ptp" || types[1] != "portmap" || types[2] != "istio-cni" {
		t.Errorf("plugins are %v, want ptp, portmap, istio-cni", types)
	}
}

func TestBrokenConfigIsReplaced(t *testing.T) {
	for _, broken := range []string{"", "{", "null", `"x"`, `{"plugins": 1}`, `{"plugins": [{}]}`} {
		path := filepath.Join(t.TempDir(), "10-lab.conflist")
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		changed, err := writeConfig(path, podCIDRs(), 1500)
		if err != nil || !changed {
			t.Errorf("over %q: changed = %t, err = %v", broken, changed, err)
		}
		if name := read(t, path)["name"]; name != "lab" {
			t.Errorf("over %q: name is %v", broken, name)
		}
	}
}

func read(t *testing.T, path string) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]any{}
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list
}
