// Package upstream reads third-party manifests and charts: Istio's charts and add-ons, the Gateway API's CRDs, MetalLB.
// They are not copied into this repository and not fetched from a URL: each comes from the Go module that its project
// publishes, at the version that go.mod pins and with the contents that go.sum lists.
package upstream

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream/gomod"
)

// The modules that are read from their folder. Istio's charts are not among them: they are compiled in (see render).
const (
	istioModule      = "istio.io/istio"
	gatewayAPIModule = "sigs.k8s.io/gateway-api"
	metalLBModule    = "go.universe.tf/metallb"
)

// Upstream reads the pinned manifests. It is safe for concurrent use.
type Upstream struct {
	modules *gomod.Modules
}

// New returns an Upstream that reads the versions pinned by the go.mod in the folder root. With root "" that is this
// repository's go.mod, which is looked for in the working directory and the folders above it when it is first needed.
func New(root string) *Upstream { return &Upstream{modules: gomod.New(root)} }

// GatewayAPI returns the Gateway API's standard channel: its CRDs, and the admission policy that refuses older versions
// of them.
func (u *Upstream) GatewayAPI(ctx context.Context) ([]*unstructured.Unstructured, error) {
	dir, err := u.modules.Dir(ctx, gatewayAPIModule)
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(dir, "config", "crd", "standard")
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, unreadable(gatewayAPIModule, err)
	}
	var objs []*unstructured.Unstructured
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".yaml" || e.Name() == "kustomization.yaml" {
			continue
		}
		more, err := readManifest(gatewayAPIModule, filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		objs = append(objs, more...)
	}
	if len(objs) == 0 {
		return nil, unreadable(gatewayAPIModule, fmt.Errorf("no manifest in %s", folder))
	}
	return objs, nil
}

// metalLBVersion is the tag of MetalLB's images, the same as its module's version.
const metalLBVersion = "v0.16.1"

// MetalLB returns MetalLB in its native mode (layer 2 without FRR). Where the module's manifest has the development
// tag, the images get the release's tag. The annotations for Prometheus are left out: MetalLB serves its metrics over
// TLS to callers with a token only, and a Prometheus that goes by the annotations reports these pods as down.
func (u *Upstream) MetalLB(ctx context.Context) ([]*unstructured.Unstructured, error) {
	dir, err := u.modules.Dir(ctx, metalLBModule)
	if err != nil {
		return nil, err
	}
	objs, err := readManifest(metalLBModule, filepath.Join(dir, "config", "manifests", "metallb-native.yaml"))
	if err != nil {
		return nil, err
	}
	for _, obj := range objs {
		for _, name := range []string{"prometheus.io/scrape", "prometheus.io/port"} {
			unstructured.RemoveNestedField(obj.Object, "spec", "template", "metadata", "annotations", name)
		}
		eachContainer(obj, func(c map[string]any) {
			image, _ := c["image"].(string)
			if name, tag, ok := strings.Cut(image, ":"); ok && tag == "main" {
				c["image"] = name + ":" + metalLBVersion
			}
		})
	}
	return objs, nil
}

// The add-ons that Addon knows.
const (
	Prometheus = "prometheus"
	Grafana    = "grafana"
	Jaeger     = "jaeger"
	Kiali      = "kiali"
)

// Addons lists the add-ons that Addon knows. Those from which others read come first.
func Addons() []string { return []string{Prometheus, Grafana, Jaeger, Kiali} }

// Addon returns one of Istio's telemetry add-ons, from samples/addons of its module. All are in the namespace
// istio-system. installed names the add-ons that are installed, which Kiali is configured to read from; none given
// means all of them. An unknown name is refused with problem.SettingInvalid.
func (u *Upstream) Addon(ctx context.Context, name string, installed ...string) ([]*unstructured.Unstructured, error) {
	if !slices.Contains(Addons(), name) {
		known := strings.Join(Addons(), ", ")
		return nil, problem.New(problem.SettingInvalid, nil, "unknown add-on %q; known: %s", name, known)
	}
	dir, err := u.modules.Dir(ctx, istioModule)
	if err != nil {
		return nil, err
	}
	objs, err := readManifest(istioModule, filepath.Join(dir, "samples", "addons", name+".yaml"))
	if err != nil {
		return nil, err
	}
	if name == Kiali {
		if len(installed) == 0 {
			installed = Addons()
		}
		if err := patchKiali(objs, installed); err != nil {
			return nil, unreadable(istioModule, err)
		}
	}
	return objs, nil
}

func readManifest(module, path string) ([]*unstructured.Unstructured, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, unreadable(module, err)
	}
	objs, err := manifest.Decode(data)
	if err != nil {
		return nil, unreadable(module, fmt.Errorf("%s: %w", filepath.Base(path), err))
	}
	return objs, nil
}

func unreadable(module string, err error) error {
	return problem.New(problem.ManifestUnavailable, err, "a manifest of module %s cannot be read", module).
		With("Run `go mod verify`; if it complains, `go clean -modcache` and try again.")
}
