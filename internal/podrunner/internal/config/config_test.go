package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	c := &Config{Images: []Image{
		{Reference: "docker.io/istio/proxyv2:1.31.1-distroless"},
		{Reference: "ghcr.io/a/b:1"},
	}}
	for ref, want := range map[string]bool{
		"docker.io/istio/proxyv2:1.31.4": true, "istio/proxyv2": true, "istio/proxyv2@sha256:00": true,
		"quay.io/istio/proxyv2:1": false,
		"ghcr.io/a/b":             true, "a/b": false, "localhost:5000/istio/proxyv2:1": false, "proxyv2": false,
	} {
		if _, found := c.Find(ref); found != want {
			t.Errorf("%s: %v", ref, found)
		}
	}
	c.Simulate = true
	if _, found := c.Find("istio/proxyv2"); found {
		t.Error("found although every pod is simulated")
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	for text, fault := range map[string]string{
		`{"dir":"/d","kubeconfig":"/k","nodes":[{"name":"n"}],"podRange":"10.244.0.0/16",` +
			`"serviceRange":"10.96.0.0/16"}`: "",
		`{`:  "unexpected end",
		`{}`: "dir is missing",
		`{"dir":"/d","kubeconfig":"/k","nodes":[{"name":"n"}],"podRange":"fd00::/64",` +
			`"serviceRange":"10.96.0.0/16"}`: "podRange is no IPv4 range",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
