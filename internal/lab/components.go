package lab

import (
	"context"
	"maps"
	"os"
	"slices"

	"ambientlab/internal/lesson/names"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

type objects = []*unstructured.Unstructured

// setStep is a step that applies a set of objects and waits until they are ready.
func (l *Lab) setStep(id, title string, needs []string, render func(context.Context) (objects, error)) engine.Step {
	set := func(ctx context.Context) (apply.Set, error) {
		rendered, err := render(ctx)
		if err != nil {
			return apply.Set{}, err
		}
		return apply.Set{Name: id, Objects: l.adapt(rendered), Namespace: l.Settings.Namespace, Force: l.Settings.Provider != ProviderExisting}, nil
	}
	step := apply.Step(l.connect, id, title, needs, apply.Objects(set))
	step.Timeout = patient // also where the control plane is embedded: what may have to be built are steps of their own
	return l.simulated(l.reminding(step, set), set)
}

// The three steps of MetalLB. Where it is no longer asked for they go the opposite way: its own objects while its
// controller still runs, and the controller before its settings.
const (
	metalLBPart = "metallb"
	processPart = "metallb-process"
	poolPart    = "address-pool"
)

func (l *Lab) metalLBLeaves() bool {
	return !l.wants(metalLBPart, l.Settings.UseMetalLB()) && (l.leaves(metalLBPart) || l.leaves(poolPart))
}

func (l *Lab) metalLBStep(needs ...string) engine.Step {
	if l.metalLBLeaves() {
		needs = []string{poolPart, processPart}
	}
	return l.optional(metalLBPart, "MetalLB", l.Settings.UseMetalLB(), needs, l.upstream.MetalLB)
}

func (l *Lab) metalLBProcessStep() engine.Step {
	const title = "MetalLB's controller, a process on this machine"
	switch {
	case l.wants(metalLBPart, l.Settings.UseMetalLB()):
		return l.processStep(processPart, title, processMetalLB, metalLBPart)
	case l.metalLBLeaves():
		return l.stopStep(processPart, title, processMetalLB, poolPart)
	default:
		return engine.Step{}
	}
}

func (l *Lab) addressPoolStep() engine.Step {
	needs := []string{metalLBPart}
	if l.metalLBLeaves() {
		needs = []string{"cluster"}
	}
	return l.optional(poolPart, "Load-balancer addresses", l.Settings.UseMetalLB(), needs, l.pool)
}

func (l *Lab) pool(ctx context.Context) (objects, error) {
	pool, err := l.provider.AddressPool(ctx)
	if err != nil && l.none != nil {
		return lb.Objects(lb.Pool{}), nil // what they are called; the addresses come from a network that is not there yet
	}
	if err != nil {
		return nil, err
	}
	engine.Progress(ctx, "addresses %v of Docker network %s", pool.Ranges, pool.Network)
	return lb.Objects(pool), nil
}

// istio gives the renderer of one of Istio's charts.
func (l *Lab) istio(component string) func(context.Context) (objects, error) {
	return func(ctx context.Context) (objects, error) {
		substitutes, err := l.substitutes(ctx)
		if err != nil {
			return nil, err
		}
		rendered, err := l.renderIstio(ctx, substitutes)
		if err != nil {
			return nil, err
		}
		return rendered[component], nil
	}
}

// renderIstio renders Istio's four charts with the lab's values, those that the substitutes in the bundle ask for,
// and the user's own over both. The result is kept: the four steps ask for it several times each.
func (l *Lab) renderIstio(ctx context.Context, subs substitutes) (map[string][]*unstructured.Unstructured, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := subs.key()
	if rendered, done := l.charts[key]; done {
		return deepCopy(rendered), nil
	}
	values, err := l.istioValues(ctx, subs)
	if err != nil {
		return nil, err
	}
	rendered, err := l.upstream.Istio(ctx, values)
	if err != nil {
		return nil, err
	}
	if l.charts == nil {
		l.charts = map[string]charts{}
	}
	l.charts[key] = rendered
	return deepCopy(rendered), nil
}

type charts = map[string][]*unstructured.Unstructured

// deepCopy keeps callers, who label what they apply, from changing what the next one gets.
func deepCopy(rendered charts) charts {
	copied := make(charts, len(rendered))
	for component, list := range rendered {
		for _, object := range list {
			copied[component] = append(copied[component], object.DeepCopy())
		}
	}
	return copied
}

func (l *Lab) istioValues(ctx context.Context, subs substitutes) (upstream.IstioValues, error) {
	extra, err := l.extraValues()
	if err != nil {
		return upstream.IstioValues{}, err
	}
	var platform cluster.Platform
	if source, ok := l.provider.(cluster.PlatformSource); ok {
		if platform, err = source.Platform(ctx); err != nil {
			return upstream.IstioValues{}, err
		}
	}
	layered := map[string]map[string]any{}
	for _, component := range upstream.Components() {
		files := []string{"istio/" + component + ".yaml"}
		if component == upstream.Istiod && subs.proxy() != "" {
			files = append(files, "istio/substitute-istiod.yaml")
		}
		if component == upstream.CNI && subs.ztunnel() != "" {
			files = append(files, "istio/substitute-cni.yaml")
		}
		merged := map[string]any{}
		for _, file := range files {
			values, err := specs.Values(file)
			if err != nil {
				return upstream.IstioValues{}, err
			}
			merge(merged, values)
		}
		merge(merged, platform.Values())
		if component == upstream.CNI {
			merge(merged, platform.CNI)
		}
		merge(merged, extra[component])
		layered[component] = merged
	}
	return upstream.IstioValues{
		Base: layered[upstream.Base], Istiod: layered[upstream.Istiod],
		CNI: layered[upstream.CNI], Ztunnel: layered[upstream.Ztunnel],
		Namespace: names.Istio,
	}, nil
}

// extraValues reads SM_ISTIO_VALUES.
func (l *Lab) extraValues() (map[string]map[string]any, error) {
	if l.Settings.IstioValues == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(l.Settings.IstioValues)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_ISTIO_VALUES=%s", l.Settings.IstioValues)
	}
	extra := map[string]map[string]any{}
	if err := yaml.UnmarshalStrict(raw, &extra); err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_ISTIO_VALUES=%s is not a map of charts to values", l.Settings.IstioValues)
	}
	for component := range extra {
		if !slices.Contains(upstream.Components(), component) {
			return nil, problem.New(problem.SettingFileUnreadable, nil, "SM_ISTIO_VALUES=%s has key %q; accepted: %v", l.Settings.IstioValues, component, upstream.Components())
		}
	}
	return extra, nil
}

// merge lays over onto base, map by map; anything else is replaced, as Helm does with its values files.
func merge(base, over map[string]any) {
	for key, value := range over {
		below, isMap := base[key].(map[string]any)
		above, both := value.(map[string]any)
		if isMap && both {
			below = maps.Clone(below)
			merge(below, above)
			base[key] = below
			continue
		}
		base[key] = value
	}
}

func (l *Lab) addonStep(name string, needs ...string) engine.Step {
	return l.optional(name, name+", a telemetry add-on", l.Settings.HasAddon(name), needs, func(ctx context.Context) (objects, error) {
		return l.upstream.Addon(ctx, name, l.Settings.Addons...)
	})
}

func (l *Lab) tracingStep(id string, needs ...string) engine.Step {
	return l.optional(id, "Traces to Jaeger", l.Settings.HasAddon(upstream.Jaeger), needs, func(context.Context) (objects, error) {
		return specs.Objects("istio/telemetry.yaml", nil)
	})
}

// The label by which a namespace joins the mesh.
const (
	dataplaneMode = "istio.io/dataplane-mode"
	ambientMode   = "ambient"
)

// namespaceStep takes the applications' namespace into the mesh. The namespace itself may be older than the lab, so
// only the label is the lab's.
func (l *Lab) namespaceStep(id string, needs ...string) engine.Step {
	namespace := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": l.Settings.Namespace, "labels": map[string]any{dataplaneMode: ambientMode}},
	}}
	step := apply.Step(l.connect, id, "Namespace "+l.Settings.Namespace+" in the mesh", needs,
		apply.Overlay{Name: id, Object: namespace, Create: true})
	step.Timeout = patient
	return step
}
