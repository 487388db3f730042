package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
)

// Diff says what Apply would change, what it would prune included, and changes
// nothing: the server itself works each object out in a dry run. It is empty after an
// Apply, whatever controllers wrote into the objects since.
func (c *Client) Diff(ctx context.Context, set Set) ([]engine.Change, error) {
	objs, live, err := c.current(ctx, set)
	if err != nil {
		return nil, err
	}
	return c.diff(ctx, set, objs, live)
}

// current gives the Set's objects as they are to be, and beside each what there is of it: nil where there is nothing.
func (c *Client) current(ctx context.Context, set Set) (objs, live []*unstructured.Unstructured, err error) {
	if objs, err = c.objects(set); err != nil {
		return nil, nil, err
	}
	live = make([]*unstructured.Unstructured, len(objs))
	err = each(ctx, len(objs), func(ctx context.Context, i int) (err error) {
		live[i], err = c.get(ctx, objs[i])
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("comparing %s with the cluster: %w", set.Name, err)
	}
	return objs, live, nil
}

// absent says what of a Set there is nothing of at all.
func absent(objs, live []*unstructured.Unstructured) []engine.Change {
	var changes []engine.Change
	for i, obj := range objs {
		if live[i] == nil {
			changes = append(changes, engine.Change{Object: idOf(obj).String(), Action: engine.Create})
		}
	}
	return changes
}

func (c *Client) diff(ctx context.Context, set Set, objs, live []*unstructured.Unstructured) ([]engine.Change, error) {
	planned := make([]*engine.Change, len(objs))
	err := each(ctx, len(objs), func(ctx context.Context, i int) (err error) {
		if live[i] != nil && live[i].GetDeletionTimestamp() != nil {
			planned[i] = &engine.Change{
				Object: idOf(objs[i]).String(), Action: engine.Create, Detail: "it is being deleted, and will be made anew",
			}
			return nil
		}
		planned[i], err = c.plan(ctx, write{obj: objs[i], manager: ManagedBy, force: set.Force}, live[i])
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %s with the cluster: %w", set.Name, err)
	}
	var changes []engine.Change
	for _, change := range planned {
		if change != nil {
			changes = append(changes, *change)
		}
	}
	stale, err := c.stale(ctx, set.Name, objs)
	if err != nil {
		return changes, err
	}
	for _, obj := range stale {
		changes = append(changes, removal(obj))
	}
	return changes, nil
}

// Apply makes the cluster hold the Set: it writes the objects that differ, stage by
// stage (a CRD before what it defines, a webhook's configuration after its server),
// and deletes what bears the part's labels and is not in the Set. What was changed is
// returned, also beside an error, and reported to the engine as it happens.
//
// A conflict with another field manager is a problem that names it, unless the Set
// says Force. Obstacles that pass by themselves are waited out until ctx ends.
func (c *Client) Apply(ctx context.Context, set Set) ([]engine.Change, error) {
	objs, err := c.objects(set)
	if err != nil {
		return nil, err
	}
	record := &record{}
	for stage := range stages {
		if err := c.applyStage(ctx, stage, objs, set, record); err != nil {
			return record.changes, fmt.Errorf("applying %s: %w", set.Name, err)
		}
	}
	stale, err := c.stale(ctx, set.Name, objs)
	if err != nil {
		return record.changes, err
	}
	if err := c.remove(ctx, stale, record); err != nil {
		return record.changes, fmt.Errorf("pruning %s: %w", set.Name, err)
	}
	return record.changes, nil
}

func (c *Client) applyStage(ctx context.Context, stage int, objs []*unstructured.Unstructured, set Set, record *record) error {
	var mine []*unstructured.Unstructured
	for _, obj := range objs {
		if stageOf(obj.GroupVersionKind()) == stage {
			mine = append(mine, obj)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	// Every object is tried, so that one run names every conflict.
	failures := make([]error, len(mine))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, obj := range mine {
		group.Go(func() error {
			failures[i] = c.applyOne(ctx, write{obj: obj, manager: ManagedBy, force: set.Force}, record)
			return nil
		})
	}
	_ = group.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	if stage == stageCRD {
		// What follows may be of these kinds.
		return c.waitFor(ctx, mine)
	}
	return nil
}

// applyOne writes an object if it differs. One that is on its way out is first seen
// gone: applied to, it would vanish all the same.
func (c *Client) applyOne(ctx context.Context, w write, record *record) error {
	var live *unstructured.Unstructured
	var change *engine.Change
	err := persist(ctx, w.obj, func() (err error) {
		if live, err = c.get(ctx, w.obj); err != nil {
			return err
		}
		if live != nil && live.GetDeletionTimestamp() != nil {
			if err := c.waitGone(ctx, w.obj); err != nil {
				return err
			}
			live = nil
		}
		if live == nil {
			// Nothing to compare with: the write itself tells all that a dry run would.
			change = &engine.Change{Object: idOf(w.obj).String(), Action: engine.Create}
			return nil
		}
		change, err = c.plan(ctx, w, live)
		return err
	})
	if err != nil || change == nil {
		return err
	}
	result, err := c.write(ctx, w)
	if err != nil {
		return err
	}
	// The dry run's answer may be stale by now, or have been a reason to wait; what
	// was really written is what is reported.
	change.Detail = ""
	if live != nil {
		fields := differences(live, result)
		if len(fields) == 0 {
			return nil
		}
		change.Detail = detail(fields)
	}
	record.add(ctx, *change)
	return nil
}

// record collects the changes of one call, and tells the engine of each.
type record struct {
	mu      sync.Mutex
	changes []engine.Change
}

func (r *record) add(ctx context.Context, change engine.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, change)
	engine.Changed(ctx, change)
}
