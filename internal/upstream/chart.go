package upstream

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"istio.io/istio/manifests"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/manifest"
)

// chartRelease is one Helm release of an Istio installation.
type chartRelease struct {
	release, folder string
}

// render returns the objects of one of Istio's charts, in the order of its templates' names. Istio's package manifests
// embeds the charts, at the module version that go.mod pins.
//
// Like istioctl, it uses Helm's loader, values and template engine, and makes no Helm release in the cluster.
func render(
	r chartRelease, namespace, kubeVersion string, values map[string]any,
) ([]*unstructured.Unstructured, error) {
	chrt, err := loadChart(manifests.FS, path.Join("charts", r.folder))
	if err != nil {
		return nil, fmt.Errorf("loading chart %s: %w", r.folder, err)
	}
	// The charts in Istio's repository have version 1.0.0, which would be a label of every object. Its release tooling
	// replaces that.
	chrt.Metadata.Version, chrt.Metadata.AppVersion = IstioVersion, IstioVersion

	caps := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(kubeVersion)
	if err != nil {
		return nil, fmt.Errorf("the cluster's version %q: %w", kubeVersion, err)
	}
	caps.KubeVersion = *version
	options := chartutil.ReleaseOptions{Name: r.release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(chrt, values, options, caps)
	if err != nil {
		return nil, fmt.Errorf("values of %s: %w", r.release, err)
	}
	files, err := engine.Render(chrt, all)
	if err != nil {
		return nil, fmt.Errorf("rendering %s: %w", r.release, err)
	}
	var objs []*unstructured.Unstructured
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".txt") {
			continue // what Helm prints after an installation
		}
		more, err := manifest.Decode([]byte(files[name]))
		if err != nil {
			return nil, fmt.Errorf("rendering %s: %s: %w", r.release, name, err)
		}
		objs = append(objs, more...)
	}
	for _, crd := range chrt.CRDObjects() {
		more, err := manifest.Decode(crd.File.Data)
		if err != nil {
			return nil, fmt.Errorf("CRDs of %s: %s: %w", r.release, crd.Filename, err)
		}
		objs = append(objs, more...)
	}
	return objs, nil
}

// loadChart reads a chart with every file of its folder: its templates read the profiles in the folder files.
func loadChart(tree fs.FS, folder string) (*chart.Chart, error) {
	var files []*loader.BufferedFile
	err := fs.WalkDir(tree, folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		files = append(files, &loader.BufferedFile{Name: strings.TrimPrefix(name, folder+"/"), Data: data})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return loader.LoadFiles(files)
}
