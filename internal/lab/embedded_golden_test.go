package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
)

// golden compares what istiod sends to the gateway and to the waypoint with files that were read against ISTIO's
// documentation by hand: a change of a spec, or of Istio, shows in them. Run with -update to write them again.
func (b *bench) golden() {
	b.t.Helper()
	istiod := mesh.NewIstiod(b.connect().Kube(), b.plane().XDSAddress)
	m, err := b.open(b.t).Mesh(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, gateway := range []string{names.Gateway, names.Waypoint} {
		pods, err := m.Pods(b.t.Context(), "default", gateway)
		if err != nil || len(pods) != 1 {
			b.t.Fatalf("pods of %s: %v, %v", gateway, pods, err)
		}
		sent, err := istiod.Resources(b.t.Context(), "default", pods[0])
		if err != nil {
			b.t.Fatal(err)
		}
		compare(b.t, gateway+"-listeners.json", sent.Listeners)
		if gateway == names.Gateway { // the waypoint's routes stand in its listeners
			compare(b.t, gateway+"-routes.json", sent.Routes)
		}
		compare(b.t, gateway+"-endpoints.json", ours(sent.Endpoints))
	}
}

// ours are the endpoints of the two applications.
func ours(endpoints []json.RawMessage) []json.RawMessage {
	return slices.DeleteFunc(slices.Clone(endpoints), func(raw json.RawMessage) bool {
		return !bytes.Contains(raw, []byte("appa.default.svc")) && !bytes.Contains(raw, []byte("appb.default.svc"))
	})
}

func compare(t *testing.T, name string, resources []json.RawMessage) {
	t.Helper()
	path := filepath.Join("..", "..", "testdata", "embedded", name)
	got := canonical(t, resources)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want := read(t, path); got != want {
		t.Errorf("istiod sends other %s than testdata/embedded holds (write them with -update, "+
			"and read the difference):\n%s", name, firstDifference(want, got))
	}
}

// canonical writes resources in the order of their names, with what differs from run to run made equal: the addresses
// and names of pods, the virtual addresses of Services, and Istio's version of itself.
func canonical(t *testing.T, resources []json.RawMessage) string {
	t.Helper()
	var texts []string
	for _, raw := range resources {
		var value any
		if err := json.Unmarshal(raw, &value); err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(value, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	text := "[\n" + strings.Join(texts, ",\n") + "\n]\n"
	text = regexp.MustCompile(`10\.244\.\d+\.\d+`).ReplaceAllString(text, "POD-IP")
	seen := map[string]string{}
	text = regexp.MustCompile(`10\.96\.\d+\.\d+`).ReplaceAllStringFunc(text, func(ip string) string {
		if seen[ip] == "" {
			seen[ip] = fmt.Sprintf("SERVICE-IP-%d", len(seen)+1)
		}
		return seen[ip]
	})
	return regexp.MustCompile(`(appa|appb|appb-waypoint|gateway-istio)-[a-z0-9]{8,10}-[a-z0-9]{5}\b`).
		ReplaceAllString(text, "$1-POD")
}

func firstDifference(want, got string) string {
	left, right := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(left), len(right)) {
		if left[i] != right[i] {
			return fmt.Sprintf("line %d: want %q, got %q", i+1, left[i], right[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d", len(left), len(right))
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
