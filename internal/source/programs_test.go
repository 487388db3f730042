package source

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// own are the modules of this project's own programs, which other folders hold.
func own(module string) bool { return strings.HasPrefix(module, "../") }

// Every program's package is one that its nested module keeps in go.mod and go.sum, with `tool`: otherwise
// -mod=readonly would refuse to build it.
func TestProgramsAreInTheirModules(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Programs() {
		if seen[p.Name] {
			t.Errorf("%s is there twice", p.Name)
		}
		seen[p.Name] = true
		if p.Cold <= 0 {
			t.Errorf("%s has no estimate", p.Name)
		}
		if own(p.Module) {
			continue
		}
		mod, err := os.ReadFile(filepath.Join("modules", p.Module, "go.mod"))
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if !slices.ContainsFunc(strings.Split(string(mod), "\n"), func(line string) bool {
			return strings.TrimSpace(strings.TrimPrefix(line, "tool ")) == p.Package
		}) {
			t.Errorf("%s: %s is no tool of modules/%s", p.Name, p.Package, p.Module)
		}
	}
}

// What a reference says is the version that the nested module pins.
func TestReferencesNameTheVersions(t *testing.T) {
	for ref, pin := range map[string][2]string{
		"docker.io/fortio/fortio:1.75.3":        {"apps", "fortio.org/fortio v1.75.3"},
		"docker.io/jaegertracing/jaeger:2.17.0": {"jaeger", "github.com/jaegertracing/jaeger v1.76.0"},
		"docker.io/mccutchen/go-httpbin:v2.26.0": {
			"apps",
			"github.com/mccutchen/go-httpbin/v2 v2.26.0",
		},
		"docker.io/prom/prometheus:v3.10.0": {
			"prometheus",
			"github.com/prometheus/prometheus v0.310.0",
		},
		"ghcr.io/prometheus-operator/prometheus-config-reloader:v0.89.0": {
			"prometheus",
			"github.com/prometheus-operator/prometheus-operator v0.89.0",
		},
		"quay.io/metallb/controller:v0.16.1":      {"metallb", "go.universe.tf/metallb v0.16.1"},
		"quay.io/metallb/speaker:v0.16.1":         {"metallb", "go.universe.tf/metallb v0.16.1"},
		"docker.io/istio/pilot:1.31.4-distroless": {"istio", "istio.io/istio v0.0.0-20260827124520-" + istioRevision},
	} {
		mod, err := os.ReadFile(filepath.Join("modules", pin[0], "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(mod), pin[1]) {
			t.Errorf("modules/%s does not pin %s", pin[0], pin[1])
		}
		if !slices.ContainsFunc(recipes(), func(r recipe) bool { return r.ref == ref }) {
			t.Errorf("there is no recipe for %s", ref)
		}
	}
}

func TestRecipes(t *testing.T) {
	var refs []string
	for _, r := range recipes() {
		refs = append(refs, r.ref)
		tag, err := name.NewTag(r.ref, name.StrictValidation)
		if err != nil {
			t.Errorf("%s: %v", r.ref, err)
			continue
		}
		if full := strings.Replace(tag.Name(), "index.docker.io", "docker.io", 1); full != r.ref {
			t.Errorf("%s is written out in full as %s", r.ref, full)
		}
		command := append(slices.Clone(r.config.Entrypoint), r.config.Cmd...)
		if len(command) == 0 || !slices.ContainsFunc(r.programs, func(p placed) bool { return p.path == command[0] }) {
			t.Errorf("%s starts %v, which is none of its programs", r.ref, command)
		}
		for _, p := range r.programs {
			if _, ok := program(p.program); !ok {
				t.Errorf("%s needs the program %s, which there is not", r.ref, p.program)
			}
		}
	}
	if !slices.IsSorted(refs) {
		t.Errorf("the references are not in order: %v", refs)
	}
}

// All modules that can are on the one Kubernetes version whose packages they then compile once.
func TestOneKubernetesVersion(t *testing.T) {
	for _, module := range []string{"kubernetes", "istio", "coredns", "../../podrunner"} {
		mod, err := os.ReadFile(filepath.Join("modules", module, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(mod), "k8s.io/client-go v0.36.3") {
			t.Errorf("modules/%s is not on k8s.io/client-go v0.36.3", module)
		}
	}
}
