package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// changeSet is the difference between what a part wants and what is in the cluster, as it was when it was computed. It
// can be shown and carried out; apply reads again what has changed since.
type changeSet struct {
	client *Client
	name   string
	writes []*write
	prune  bool
	// stale are the objects to prune, once they have been looked for.
	stale      []*metav1.PartialObjectMetadata
	staleFound bool
}

// changes reads what is in the cluster of a part. Which fields differ is asked of the API server later, by judge.
func (c *Client) changes(ctx context.Context, name string, part Part) (*changeSet, error) {
	writes, prune, err := part.desired(ctx, c)
	if err != nil {
		return nil, err
	}
	computed := &changeSet{client: c, name: name, writes: writes, prune: prune}
	live, err := c.fetch(ctx, computed.objects())
	if err != nil {
		return nil, fmt.Errorf("comparing %s with the cluster: %w", name, err)
	}
	for i, w := range writes {
		w.live = live[i]
	}
	return computed, nil
}

// recall takes over from an earlier change set of the same part, which was carried out, what is known of objects that
// have not changed since: the API server has answered what it made of them, and would answer the same. What was to be
// pruned is gone.
func (s *changeSet) recall(earlier *changeSet) {
	if earlier == nil || earlier.client != s.client {
		return
	}
	s.staleFound = earlier.staleFound
	known := make(map[id]*write, len(earlier.writes))
	for _, w := range earlier.writes {
		known[idOf(w.desired)] = w
	}
	for _, w := range s.writes {
		if before := known[idOf(w.desired)]; before != nil && before.carriedOut() && w.same(before) {
			w.judged = true
		}
	}
}

// objects returns the objects of the part, as they are to be applied.
func (s *changeSet) objects() objectList {
	objs := make(objectList, len(s.writes))
	for i, w := range s.writes {
		objs[i] = w.desired
	}
	return objs
}

// awaited returns the objects that the step waits for, and how they were read last.
func (s *changeSet) awaited() (objs, live objectList) {
	for _, w := range s.writes {
		if !w.notAwaited {
			objs, live = append(objs, w.desired), append(live, w.live)
		}
	}
	return objs, live
}

// missing lists the objects that do not exist, as changes. It needs no dry run, and one of a large CRD takes the API
// server about as long as its creation.
func (s *changeSet) missing() []engine.Change {
	var changes []engine.Change
	for _, w := range s.writes {
		if w.live == nil {
			changes = append(changes, w.creation())
		}
	}
	return changes
}

// judge completes the change set and lists its changes, prunes included; the API server computes each in a dry run. The
// list is empty after the changes were carried out, whatever controllers have written into the objects since.
func (s *changeSet) judge(ctx context.Context) ([]engine.Change, error) {
	err := inParallel(ctx, len(s.writes), func(ctx context.Context, i int) error {
		if s.writes[i].judged {
			return nil
		}
		return s.client.judge(ctx, s.writes[i], true)
	})
	if err != nil {
		return nil, fmt.Errorf("comparing %s with the cluster: %w", s.name, err)
	}
	var changes []engine.Change
	for _, w := range s.writes {
		if w.change != nil {
			changes = append(changes, *w.change)
		}
	}
	if err := s.findStale(ctx); err != nil {
		return changes, err
	}
	for _, obj := range s.stale {
		changes = append(changes, removal(obj))
	}
	return changes, nil
}

// findStale looks for the objects to prune: those with the part's labels that are not among its objects.
func (s *changeSet) findStale(ctx context.Context) error {
	if !s.prune || s.staleFound {
		return nil
	}
	found, err := s.client.owned(ctx, s.name)
	if err != nil {
		return err
	}
	desired := make(map[id]bool, len(s.writes))
	for _, w := range s.writes {
		desired[idOf(w.desired)] = true
	}
	for _, obj := range found {
		if !desired[idOf(obj)] && obj.GetDeletionTimestamp() == nil {
			s.stale = append(s.stale, obj)
		}
	}
	s.staleFound = true
	return nil
}

// apply carries the changes out: it writes the objects that differ, stage by stage (a CRD before the objects of its
// kind, a webhook's configuration after its server), and then prunes. What changed in the cluster since the change set
// was computed is read again. The changes that were made are reported to the engine at once, and returned, even when an
// error is returned too.
//
// A conflict with another field manager is a problem that names it, unless the Set says Force. Errors that go away by
// themselves are retried until ctx ends.
func (s *changeSet) apply(ctx context.Context) ([]engine.Change, error) {
	made := &record{}
	for stage := range stages {
		if err := s.applyStage(ctx, stage, made); err != nil {
			return made.changes, fmt.Errorf("applying %s: %w", s.name, err)
		}
	}
	if err := s.findStale(ctx); err != nil {
		return made.changes, err
	}
	if err := s.client.remove(ctx, s.stale, made); err != nil {
		return made.changes, fmt.Errorf("pruning %s: %w", s.name, err)
	}
	return made.changes, nil
}

func (s *changeSet) applyStage(ctx context.Context, stage int, made *record) error {
	var writes []*write
	var objs objectList
	for _, w := range s.writes {
		if stageOf(w.desired.GroupVersionKind()) == stage {
			writes, objs = append(writes, w), append(objs, w.desired)
		}
	}
	if stage == stageWorkload && len(writes) > 0 && writes[0].beforePods != nil {
		if err := writes[0].beforePods(ctx); err != nil {
			return err
		}
	}
	// Every object is tried, so that one run names every conflict.
	failures := make([]error, len(writes))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, w := range writes {
		group.Go(func() error {
			failures[i] = s.client.execute(ctx, w, made)
			return nil
		})
	}
	_ = group.Wait()
	if err := errors.Join(failures...); err != nil || stage != stageCRD || len(objs) == 0 {
		return err
	}
	return s.client.waitFor(ctx, objs) // the next stages may hold objects of these kinds
}

// execute makes the change of one object, and none where there is none. Where another client changed the object since
// it was read, the change is computed again.
func (c *Client) execute(ctx context.Context, w *write, made *record) error {
	current := w.judged && w.live != nil // the write itself then fails if the object has changed
	var result *unstructured.Unstructured
	err := persist(ctx, w.desired, func() (err error) {
		if !current {
			if err := c.refresh(ctx, w); err != nil {
				return err
			}
		}
		if w.change == nil {
			return nil
		}
		if w.overlay != "" && !w.create && w.live == nil {
			return problem.New(problem.ObjectMissing, nil,
				"%s does not exist, so the fields of %s cannot be set on it", idOf(w.desired), w.overlay)
		}
		current = false
		if result, err = c.send(ctx, w, false); uidMismatch(err) {
			return errReplaced
		}
		return c.explainWrite(ctx, w, err)
	})
	if err != nil || w.change == nil {
		return err
	}
	defer func() { w.live, w.obj, w.change = result, nil, nil }()
	// The dry run may have given a reason to wait instead of the fields. What was written is what is reported.
	change := *w.change
	if w.live == nil {
		change.Detail = ""
	} else if fields := differences(w.live, result); len(fields) > 0 {
		change.Detail = detail(fields)
	} else if w.overlay == "" {
		return nil
	}
	made.add(ctx, change)
	return nil
}

// refresh reads an object again and computes its change where that is not known, or no longer true.
func (c *Client) refresh(ctx context.Context, w *write) error {
	before := w.live
	if err := c.read(ctx, w); err != nil {
		return err
	}
	if w.live != nil && w.live.GetDeletionTimestamp() != nil {
		// An apply now would not stop its deletion.
		if err := c.waitGone(ctx, w.desired); err != nil {
			return err
		}
		w.live = nil
	}
	if w.judged && version(before) == version(w.live) {
		return nil
	}
	// Of an object that does not exist, the write itself says all that a dry run would.
	return c.judge(ctx, w, w.live != nil)
}

func version(live *unstructured.Unstructured) string {
	if live == nil {
		return ""
	}
	return string(live.GetUID()) + "/" + live.GetResourceVersion()
}

// explainWrite makes a problem of an error that does not go away by itself.
func (c *Client) explainWrite(ctx context.Context, w *write, err error) error {
	switch {
	case err == nil, isTransient(err), ctx.Err() != nil:
		return err
	case kindUnknown(err) && c.crdServesSoon(ctx, w.desired):
		return errNotServedYet
	default:
		return rejected(w.desired, err)
	}
}

// record collects the changes of one call, and reports each to the engine.
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
