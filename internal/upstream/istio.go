package upstream

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/problem"
)

// What Istio's release tooling writes into the charts. As they are in the module, they name unreleased images in a
// registry of Istio's CI.
const (
	IstioVersion = "1.31.4"
	istioHub     = "docker.io/istio"
)

// The components of Istio, in the order in which they are installed.
const (
	Base    = "base"
	Istiod  = "istiod"
	CNI     = "cni"
	Ztunnel = "ztunnel"
)

// Components lists Istio's components in the order in which they are installed.
func Components() []string { return []string{Base, Istiod, CNI, Ztunnel} }

// defaultNamespace is Istio's namespace unless the caller names another.
const defaultNamespace = "istio-system"

// defaultKubeVersion is the Kubernetes version that charts are rendered for where there is no cluster.
const defaultKubeVersion = "v1.36.0"

// profile is the set of defaults for an ambient mesh. Every chart needs it, ztunnel's too: it also selects the
// distroless images.
const profile = "ambient"

// IstioValues are the Helm values of each chart. They override Istio's defaults and those of the ambient profile. Hub,
// tag and profile are set where the values do not have them.
type IstioValues struct {
	Base, Istiod, CNI, Ztunnel map[string]any
	// Namespace is istio-system when empty.
	Namespace string
	// KubeVersion is the cluster's version, such as v1.36.4; a recent one when empty.
	KubeVersion string
}

// Istio renders the charts of an ambient installation. The result has one entry per component (see Components), always
// in the same order; base begins with the namespace, which no chart contains. Values that a chart or the lab does not
// accept are refused with problem.SettingInvalid.
func (u *Upstream) Istio(ctx context.Context, v IstioValues) (map[string][]*unstructured.Unstructured, error) {
	if v.Namespace == "" {
		v.Namespace = defaultNamespace
	}
	if v.KubeVersion == "" {
		v.KubeVersion = defaultKubeVersion
	}
	charts := []struct {
		component string
		chartRelease
		values map[string]any
	}{
		{Base, chartRelease{"istio-base", "base"}, v.Base},
		{Istiod, chartRelease{"istiod", "istio-control/istio-discovery"}, v.Istiod},
		{CNI, chartRelease{"istio-cni", "istio-cni"}, v.CNI},
		{Ztunnel, chartRelease{"ztunnel", "ztunnel"}, v.Ztunnel},
	}
	rendered := make(map[string][]*unstructured.Unstructured, len(charts))
	for _, c := range charts {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("rendering %s: %w", c.release, context.Cause(ctx))
		}
		values, err := withDefaults(c.component, v.Namespace, c.values)
		if err != nil {
			return nil, err
		}
		objs, err := render(c.chartRelease, v.Namespace, v.KubeVersion, values)
		if err != nil {
			// The charts are pinned and tested, so the values are wrong.
			return nil, problem.New(problem.SettingInvalid, err,
				"Istio's chart %s does not accept its values", c.folder)
		}
		rendered[c.component] = objs
	}
	ns := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": v.Namespace},
	}}
	rendered[Base] = append([]*unstructured.Unstructured{ns}, rendered[Base]...)
	return rendered, nil
}

// withDefaults copies a chart's values and adds what the lab needs and the caller has not set.
func withDefaults(component, namespace string, values map[string]any) (map[string]any, error) {
	values, _ = withInts(values).(map[string]any)
	if values == nil {
		values = map[string]any{}
	}
	if err := refuseRetired(component, values); err != nil {
		return nil, err
	}
	if err := setProfile(component, values); err != nil {
		return nil, err
	}
	type setting struct {
		value any
		path  []string
	}
	defaults := []setting{
		{istioHub, []string{"global", "hub"}},
		{IstioVersion, []string{"global", "tag"}},
	}
	if namespace != defaultNamespace {
		defaults = append(defaults, setting{namespace, []string{"global", "istioNamespace"}})
	}
	if component == Base || component == Istiod {
		// The charts set the validating webhook's failurePolicy to Ignore, and istiod changes it to Fail once it can
		// answer. With Fail from the start, a second apply does not change it back.
		defaults = append(defaults, setting{"Fail", []string{"base", "validationFailurePolicy"}})
	}
	for _, d := range defaults {
		if _, found, err := unstructured.NestedFieldNoCopy(values, d.path...); err == nil && found {
			continue
		}
		if err := unstructured.SetNestedField(values, d.value, d.path...); err != nil {
			return nil, problem.New(problem.SettingInvalid, err, "Helm values of %s", component)
		}
	}
	return values, nil
}

// setProfile sets the profile, and refuses another one: the charts accept one name, and only ambient makes an ambient
// mesh.
func setProfile(component string, values map[string]any) error {
	given, _, _ := unstructured.NestedFieldNoCopy(values, "profile")
	global, _, _ := unstructured.NestedFieldNoCopy(values, "global", "profile")
	for _, name := range []any{given, global} {
		if name != nil && name != profile {
			return problem.New(problem.SettingInvalid, nil,
				"Helm values of %s set profile %v; the charts accept one profile, and the lab needs %s",
				component, name, profile)
		}
	}
	if global == nil {
		values["profile"] = profile
	}
	return nil
}

// retiredRegistries are registries that Istio retires in 2026.
func retiredRegistries() []string { return []string{"registry.istio.io", "gcr.io/istio-release"} }

// refuseRetired refuses values that name a retired registry, before a node fails to pull from it.
func refuseRetired(component string, values map[string]any) error {
	var walk func(at string, v any) error
	walk = func(at string, v any) error {
		switch v := v.(type) {
		case map[string]any:
			for _, k := range slices.Sorted(maps.Keys(v)) {
				if err := walk(strings.TrimPrefix(at+"."+k, "."), v[k]); err != nil {
					return err
				}
			}
		case []any:
			for i, e := range v {
				if err := walk(fmt.Sprintf("%s[%d]", at, i), e); err != nil {
					return err
				}
			}
		case string:
			for _, host := range retiredRegistries() {
				if v == host || strings.HasPrefix(v, host+"/") {
					return problem.New(problem.SettingInvalid, nil,
						"Helm values of %s: %s is %q, and Istio retires the registry %s in 2026",
						component, at, v, host).
						With("Use " + istioHub + ", Istio's registry since 1.31.")
				}
			}
		}
		return nil
	}
	return walk("", values)
}

// withInts copies a value, with whole floats as int64: sigs.k8s.io/yaml decodes every number as float64, which
// templates print in exponent form where it is large.
func withInts(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = withInts(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = withInts(e)
		}
		return s
	case float64:
		if i := int64(v); float64(i) == v {
			return i
		}
		return v
	case int:
		return int64(v)
	default:
		return v
	}
}
