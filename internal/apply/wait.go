package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// diagnosisTime bounds the look at pods, logs and events after a wait has failed. It
// has a deadline of its own, as the wait's is over by then.
const diagnosisTime = 10 * time.Second

// reasonEvery bounds how often a wait asks pods and events for the reason it shows.
const reasonEvery = 2 * time.Second

// Wait returns when every object of the Set is ready. It looks at once, and then as
// often as something changes. When ctx ends first, or when an object has failed for
// good, the error is a problem that says why: what the pod waits for, the last line
// that its container logged, the latest warning, and on which node.
func (c *Client) Wait(ctx context.Context, set Set) error {
	objs, err := c.objects(set)
	if err != nil {
		return err
	}
	if err := c.waitFor(ctx, objs); err != nil {
		return fmt.Errorf("waiting for %s: %w", set.Name, err)
	}
	return nil
}

// waitFor is Wait for objects as they were applied.
func (c *Client) waitFor(ctx context.Context, objs []*unstructured.Unstructured) error {
	pending := objs
	var open []unready
	var explained time.Time
	since := map[string]time.Time{} // when states that may not last were first seen
	look := func(ctx context.Context) (bool, error) {
		now, err := c.survey(ctx, pending, objs)
		if err != nil {
			if isPassing(err) {
				return false, nil
			}
			return false, err
		}
		open = now
		if len(open) == 0 {
			return true, nil
		}
		pending = pending[:0:0]
		for i, u := range open {
			if u.failed || lasted(since, u) {
				open[i].failed = true
				return false, errFailed
			}
			pending = append(pending, u.obj)
		}
		if time.Since(explained) >= reasonEvery {
			engine.Progress(ctx, "%s", c.explain(ctx, open).Seen)
			explained = time.Now()
		}
		return false, nil
	}
	err := c.await(ctx, scopesOf(objs), look)
	switch {
	case err == nil:
		return c.confirm(ctx, objs)
	case interrupted(ctx), !errors.Is(err, errFailed) && ctx.Err() == nil:
		return err
	}
	return c.notReady(ctx, objs, open, err)
}

// lasted tells whether a state has used up its patience. since is kept from look to look.
func lasted(since map[string]time.Time, u unready) bool {
	id := idOf(u.obj).String()
	first, seen := since[id]
	switch {
	case u.patience == 0:
		delete(since, id)
		return false
	case !seen:
		since[id] = time.Now()
		return false
	default:
		return time.Since(first) >= u.patience
	}
}

// interrupted tells a context that was called off from one whose time was up. Who
// called it off wants the call to return, and not to hear why it would have failed.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// errFailed ends a wait for an object that will not become ready.
var errFailed = errors.New("it will not become ready by itself")

// confirm looks at everything once more: what was ready early in a long wait may have
// stopped being so.
func (c *Client) confirm(ctx context.Context, objs []*unstructured.Unstructured) error {
	open, err := c.survey(ctx, objs, objs)
	if err != nil || len(open) == 0 {
		return err
	}
	return c.waitFor(ctx, objs)
}

// notReady makes the problem of a wait that failed.
func (c *Client) notReady(ctx context.Context, objs []*unstructured.Unstructured, open []unready, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), diagnosisTime)
	defer cancel()
	// A look that was cut off by the deadline may be older than the truth.
	if now, err := c.survey(ctx, objs, objs); err == nil {
		open = now
	}
	switch {
	case len(open) == 0 && errors.Is(cause, errFailed):
		return nil // it became ready by itself after all
	case len(open) == 0:
		return fmt.Errorf("became ready just as the wait ended: %w", cause)
	}
	found := c.explain(ctx, open)
	found.Err = cause
	return found
}

// waitGone returns when an object is no longer in the cluster. When ctx ends first, the
// problem names what holds it.
func (c *Client) waitGone(ctx context.Context, obj client.Object) error {
	var last *unstructured.Unstructured
	start := time.Now()
	gvk := obj.GetObjectKind().GroupVersionKind()
	err := c.await(ctx, []scope{{gvk, obj.GetNamespace()}}, func(ctx context.Context) (bool, error) {
		live, err := c.get(ctx, obj)
		if err != nil {
			if isPassing(err) {
				return false, nil
			}
			return false, err
		}
		if live == nil || obj.GetUID() != "" && live.GetUID() != obj.GetUID() {
			return true, nil
		}
		last = live
		if time.Since(start) >= reasonEvery {
			engine.Progress(ctx, "%s is still there%s", idOf(obj), finalizers(live))
		}
		return false, nil
	})
	if err == nil || ctx.Err() == nil || last == nil || interrupted(ctx) {
		return err
	}
	return problem.New(problem.DeleteStuck, err, "%s is still there%s", idOf(obj), held(last))
}

// held says what keeps an object: its finalizers and, of a namespace, what its
// controller says is left in it.
func held(obj *unstructured.Unstructured) string {
	text := finalizers(obj)
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	for _, kind := range []string{"NamespaceContentRemaining", "NamespaceFinalizersRemaining", "NamespaceDeletionDiscoveryFailure"} {
		if status, message, _ := condition(obj, conditions, kind); status == "True" {
			text += "; " + strings.TrimSpace(message)
		}
	}
	return text
}
