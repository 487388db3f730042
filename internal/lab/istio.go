package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/cluster"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

type objects = []*unstructured.Unstructured

// charts renders Istio's four charts with the lab's values, those that the substitutes in use and the cluster's
// platform need, and the user's own over all of them. A result is kept, since several steps ask for it several times
// each.
type charts struct {
	upstream *upstream.Upstream
	extra    string           // SM_ISTIO_VALUES
	provider cluster.Provider // nil where the charts are for no cluster

	mu       sync.Mutex
	rendered map[string]map[string]objects // by the substitutes, then by chart
}

func newCharts(env *session.Env, provider cluster.Provider) *charts {
	return &charts{
		upstream: env.Upstream(), extra: env.Settings.IstioValues, provider: provider,
		rendered: map[string]map[string]objects{},
	}
}

// of gives the renderer of one chart, with the substitutes that are in use when it runs.
func (c *charts) of(s *session.Session, component string) session.Render {
	return func(ctx context.Context) (objects, error) {
		substitutes, err := s.Substitutes(ctx)
		if err != nil {
			return nil, err
		}
		rendered, err := c.render(ctx, substitutes)
		if err != nil {
			return nil, err
		}
		return rendered[component], nil
	}
}

// render gives the objects of every chart. The caller may change them.
func (c *charts) render(ctx context.Context, substitutes session.Substitutes) (map[string]objects, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := fmt.Sprint(slices.Sorted(maps.Keys(substitutes)))
	if _, done := c.rendered[key]; !done {
		values, err := c.values(ctx, substitutes)
		if err != nil {
			return nil, err
		}
		rendered, err := c.upstream.Istio(ctx, values)
		if err != nil {
			if c.extra != "" {
				err = fmt.Errorf("with SM_ISTIO_VALUES=%s: %w", c.extra, err)
			}
			return nil, err
		}
		for _, list := range rendered {
			upstream.AskSoon(list)
		}
		c.rendered[key] = rendered
	}
	copied := map[string]objects{}
	for component, list := range c.rendered[key] {
		for _, object := range list {
			copied[component] = append(copied[component], object.DeepCopy())
		}
	}
	return copied, nil
}

func (c *charts) values(ctx context.Context, substitutes session.Substitutes) (upstream.IstioValues, error) {
	extra, err := readIstioValues(c.extra)
	if err != nil {
		return upstream.IstioValues{}, err
	}
	var platform cluster.Platform
	if source, ok := c.provider.(cluster.PlatformSource); ok {
		if platform, err = source.Platform(ctx); err != nil {
			return upstream.IstioValues{}, err
		}
	}
	merged := map[string]map[string]any{}
	for _, component := range upstream.Components() {
		files := []string{"istio/" + component + ".yaml"}
		if component == upstream.Istiod && substitutes.Proxy() != "" {
			files = append(files, "istio/substitute-istiod.yaml")
		}
		if component == upstream.CNI && substitutes.Ztunnel() != "" {
			files = append(files, "istio/substitute-cni.yaml")
		}
		merged[component] = map[string]any{}
		for _, file := range files {
			values, err := specs.Values(file)
			if err != nil {
				return upstream.IstioValues{}, err
			}
			mergeValues(merged[component], values)
		}
		mergeValues(merged[component], platform.Values())
		if component == upstream.CNI {
			mergeValues(merged[component], platform.CNI)
		}
		mergeValues(merged[component], extra[component])
	}
	return upstream.IstioValues{
		Base: merged[upstream.Base], Istiod: merged[upstream.Istiod],
		CNI: merged[upstream.CNI], Ztunnel: merged[upstream.Ztunnel],
		Namespace: names.Istio,
	}, nil
}

// readIstioValues reads SM_ISTIO_VALUES: values by chart.
func readIstioValues(path string) (map[string]map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_ISTIO_VALUES=%s", path)
	}
	values := map[string]map[string]any{}
	if err := yaml.UnmarshalStrict(raw, &values); err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err,
			"SM_ISTIO_VALUES=%s is not a map of charts to values", path)
	}
	for component := range values {
		if !slices.Contains(upstream.Components(), component) {
			return nil, problem.New(problem.SettingFileUnreadable, nil, "SM_ISTIO_VALUES=%s has key %q; accepted: %v",
				path, component, upstream.Components())
		}
	}
	if refused := mesh.RefusedValues(values); len(refused) > 0 {
		return nil, problem.New(problem.SettingInvalid, nil, "SM_ISTIO_VALUES=%s: %s", path,
			strings.Join(refused, "\n"))
	}
	return values, nil
}

// mergeValues merges over into base, map by map. Any other value is replaced, as Helm does with its values files.
func mergeValues(base, over map[string]any) {
	for key, value := range over {
		below, isMap := base[key].(map[string]any)
		above, both := value.(map[string]any)
		if isMap && both {
			below = maps.Clone(below)
			mergeValues(below, above)
			base[key] = below
			continue
		}
		base[key] = value
	}
}
