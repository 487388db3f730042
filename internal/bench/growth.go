package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const groupGrowth = "growth"

// growth measures what sm:install costs with more and more nodes and objects of the user's, on control planes whose
// pods are only reported as running: what grows is the lab's own work. What each further object costs says whether the
// growth is linear.
func (b *bench) growth(ctx context.Context) error {
	env := b.labEnv("SM_CLUSTER="+b.name+"-grow", "SM_PROVIDER=embedded", "SM_PACKETS=off", "SM_BUNDLE=",
		"KUBECONFIG="+b.file("grow"))
	remove := func() error { return b.run(context.WithoutCancel(ctx), env, b.lab, "sm:delete") }
	for _, nodes := range []int{1, 5, 10} {
		of := func(name string) string { return fmt.Sprintf("%s, nodes: %d", name, nodes) }
		if _, err := b.grow(ctx, append(env, fmt.Sprint("SM_WORKERS=", nodes-1)), of); err != nil {
			return errors.Join(err, remove())
		}
		if err := remove(); err != nil {
			return err
		}
	}
	return errors.Join(b.growObjects(ctx, append(env, "SM_WORKERS=9")), remove())
}

// growObjects installs more and more objects on ten nodes.
func (b *bench) growObjects(ctx context.Context, env []string) error {
	if err := b.run(ctx, env, b.lab, "sm:install"); err != nil {
		return err
	}
	var before map[string]float64
	sizes := b.options.grown
	for i, n := range sizes {
		file, err := b.writeObjects(fmt.Sprintf("grow-%d.json", n), userObjects(n))
		if err != nil {
			return err
		}
		of := func(name string) string { return fmt.Sprintf("%s, nodes: 10, objects: %d", name, n) }
		costs, err := b.grow(ctx, append(env, "SM_MANIFESTS="+file), of)
		if err != nil {
			return err
		}
		for _, cost := range growthCosts() {
			if i > 0 {
				more := (costs[cost.name] - before[cost.name]) / float64(n-sizes[i-1])
				b.report.add(groupGrowth, fmt.Sprintf("%s, for each of the objects from %d to %d", cost.name,
					sizes[i-1], n), cost.eachUnit, more*cost.eachFactor)
			}
		}
		before = costs
	}
	return nil
}

// The costs of a run, and their units.
const (
	costTime   = "time"
	costWaited = "waited by all steps"
	costCPU    = "CPU of the lab"
	costMemory = "peak memory of the lab"
	costAgain  = "time with no changes"
)

// growthCost is one of them. What it is for each object has a smaller unit.
type growthCost struct {
	name, unit, eachUnit string
	eachFactor           float64
}

func growthCosts() []growthCost {
	return []growthCost{
		{costTime, "s", "ms", 1000},
		{costWaited, "s", "ms", 1000},
		{costCPU, "s", "ms", 1000},
		{costMemory, "MiB", "KiB", 1024},
		{costAgain, "s", "ms", 1000},
	}
}

// grow measures an install, and a second one that changes nothing. It gives the costs by name.
func (b *bench) grow(ctx context.Context, env []string, of func(string) string) (map[string]float64, error) {
	costs := map[string]float64{}
	trace := filepath.Join(b.dir, "grow-trace.json")
	began := now()
	command, err := b.output(ctx, append(env, "SM_TRACE="+trace), b.lab, "sm:install")
	if err != nil {
		return nil, err
	}
	costs[costTime], _ = began.since()
	state := command.ProcessState
	costs[costCPU] = (state.UserTime() + state.SystemTime()).Seconds()
	if resident, known := peakResident(state); known {
		costs[costMemory] = float64(resident) / (1 << 20)
	}
	steps, err := readTrace(trace)
	if err != nil {
		return nil, err
	}
	for _, s := range steps {
		costs[costWaited] += s.Waited
	}
	began = now()
	if err := b.run(ctx, env, b.lab, "sm:install"); err != nil {
		return nil, err
	}
	costs[costAgain], _ = began.since()
	for _, cost := range growthCosts() {
		b.report.add(groupGrowth, of(cost.name), cost.unit, costs[cost.name])
	}
	return costs, nil
}

// perDeployment is how many of a user's objects come with one Deployment: a step waits for these.
const perDeployment = 100

// userObjects makes a namespace with n objects.
func userObjects(n int) []*unstructured.Unstructured {
	const namespace = "bench-grow"
	objects := configMaps(namespace, n-n/perDeployment)
	for i := range n / perDeployment {
		labels := map[string]any{"app": fmt.Sprint("grow-", i)}
		objects = append(objects, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": "Deployment",
			"metadata": map[string]any{"name": labels["app"], "namespace": namespace},
			"spec": map[string]any{
				"selector": map[string]any{"matchLabels": labels},
				"template": map[string]any{
					"metadata": map[string]any{"labels": labels},
					"spec": map[string]any{"containers": []any{
						map[string]any{"name": "app", "image": "example.org/app:1"},
					}},
				},
			},
		}})
	}
	return objects
}
