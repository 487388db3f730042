package main

import (
	"context"
	"fmt"
	"runtime"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
)

// apply measures how long it takes to bring many small objects into the lab's cluster, with kubectl and with package
// apply, and then again where nothing changes.
func (b *bench) apply(ctx context.Context) error {
	if err := b.needLab(ctx); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", b.kubeconfig)
	if err != nil {
		return err
	}
	for _, n := range b.objects {
		group := fmt.Sprintf("%d objects", n)
		if err := b.withKubectl(ctx, group, n); err != nil {
			return err
		}
		client, err := apply.New(config, b.name, apply.Options{})
		if err != nil {
			return err
		}
		part := apply.Objects(func(context.Context) (apply.Set, error) {
			return apply.Set{Name: "bench", Objects: configMaps("bench-lab", n)}, nil
		})
		connect := func(context.Context) (*apply.Client, error) { return client, nil }
		plan := engine.Plan{Name: "bench", Steps: []engine.Step{apply.Step(connect, "bench", "bench", nil, part)}}
		for _, what := range []string{"package apply", "package apply again, no changes"} {
			peak, began := heapPeak(), now()
			if _, err := (&engine.Engine{}).Apply(ctx, plan); err != nil {
				return err
			}
			b.report.spent(group, what, began)
			b.report.add(group, what+", peak of its heap", "MiB", float64(peak())/(1<<20))
		}
		began := now()
		if _, err := (&engine.Engine{}).Undo(ctx, plan); err != nil {
			return err
		}
		b.report.spent(group, "package apply, deleting them", began)
		b.report.compare(group, "package apply", kubectlApply)
	}
	return nil
}

// kubectlApply is the name of what package apply is compared with. kubectl sends at most 50 requests in a second, and
// has no option for that.
const kubectlApply = "kubectl apply --server-side"

// againLimit is up to how many objects are applied again with kubectl: it takes as long as the first time.
const againLimit = 1000

func (b *bench) withKubectl(ctx context.Context, group string, n int) error {
	file, err := b.writeObjects("objects.json", configMaps("bench-kubectl", n))
	if err != nil {
		return err
	}
	for _, what := range []string{kubectlApply, kubectlApply + " again"} {
		if what != kubectlApply && n > againLimit {
			continue
		}
		began := now()
		if err := b.with(ctx, "apply", "--server-side", "-f", file); err != nil {
			return err
		}
		b.report.spent(group, what, began)
	}
	return b.with(ctx, "delete", "namespace", "bench-kubectl")
}

// configMaps makes a namespace with n objects in it.
func configMaps(namespace string, n int) []*unstructured.Unstructured {
	objects := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace},
	}}}
	for i := range n {
		objects = append(objects, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": fmt.Sprintf("object-%05d", i), "namespace": namespace},
			"data":     map[string]any{"number": fmt.Sprint(i), "text": "one of many small objects"},
		}})
	}
	return objects
}

// heapPeak watches the size of this process's heap; see peak.
func heapPeak() func() int64 {
	runtime.GC()
	return peak(func() int64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapInuse)
	})
}
