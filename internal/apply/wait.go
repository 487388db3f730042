package apply

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// diagnosisTime limits the reading of pods, logs and events after a wait has failed, when the wait's own context has
// ended.
const diagnosisTime = 10 * time.Second

// reasonEvery limits how often a wait reads pods and events for the reason that it reports.
const reasonEvery = 2 * time.Second

// waitFor returns when every object is ready. It looks at once, and then whenever something changes. When ctx ends
// first, or when an object will not become ready, the error is a problem that says why: what the pod waits for, the
// last lines that its container logged, the latest warning, and on which node.
func (c *Client) waitFor(ctx context.Context, objs objectList) error {
	pending := objs
	var unready []unreadyObject
	var explained time.Time
	since := map[string]time.Time{} // when states with a limit were first seen
	var failing Failing
	done := func(ctx context.Context) (bool, error) {
		now, err := c.unready(ctx, pending, objs)
		if err != nil {
			if isTransient(err) {
				return false, nil
			}
			return false, err
		}
		unready = now
		if len(unready) == 0 {
			return true, nil
		}
		pending = pending[:0:0]
		for i, u := range unready {
			if u.Failed || lasted(since, u) {
				unready[i].Failed = true
				return false, errFailed
			}
			pending = append(pending, u.obj)
		}
		if time.Since(explained) >= reasonEvery {
			found := c.explain(ctx, unready)
			engine.Progress(ctx, "%s", found.Seen)
			explained = time.Now()
			if failing.TooLong(found) {
				return false, errFailed
			}
		}
		return false, nil
	}
	err := c.waitUntil(ctx, c.scopesOf(objs), done)
	switch {
	case err == nil && len(pending) == len(objs):
		return nil // all were seen ready at once
	case err == nil:
		return c.confirm(ctx, objs)
	case interrupted(ctx), !errors.Is(err, errFailed) && ctx.Err() == nil:
		return err
	}
	return c.notReady(ctx, objs, unready, err)
}

// lasted says whether an object has been in its state for longer than the state may last. since is kept between calls.
func lasted(since map[string]time.Time, u unreadyObject) bool {
	id := idOf(u.obj).String()
	first, seen := since[id]
	switch {
	case u.Limit == 0:
		delete(since, id)
		return false
	case !seen:
		since[id] = time.Now()
		return false
	default:
		return time.Since(first) >= u.Limit
	}
}

// interrupted says whether a context was cancelled, and not ended by its deadline: then a call returns without reading
// why it would have failed.
func interrupted(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// errFailed ends a wait for an object that will not become ready.
var errFailed = errors.New("it will not become ready by itself")

// confirm looks at all objects again: one that was ready early in a long wait may not be ready any more.
func (c *Client) confirm(ctx context.Context, objs objectList) error {
	unready, err := c.unready(ctx, objs, objs)
	if err != nil || len(unready) == 0 {
		return err
	}
	return c.waitFor(ctx, objs)
}

// notReady makes the problem of a wait that failed.
func (c *Client) notReady(ctx context.Context, objs objectList, unready []unreadyObject, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), diagnosisTime)
	defer cancel()
	// What was read last may be out of date: the deadline may have interrupted a newer read.
	if now, err := c.unready(ctx, objs, objs); err == nil {
		unready = now
	}
	switch {
	case len(unready) == 0 && errors.Is(cause, errFailed):
		return nil // it became ready after all
	case len(unready) == 0:
		return fmt.Errorf("became ready just as the wait ended: %w", cause)
	}
	found := c.explain(ctx, unready)
	found.Err = cause
	return found
}

// waitGone returns when an object is no longer in the cluster. When ctx ends first, the problem names what keeps it.
func (c *Client) waitGone(ctx context.Context, obj client.Object) error {
	var last *unstructured.Unstructured
	start := time.Now()
	gvk := obj.GetObjectKind().GroupVersionKind()
	err := c.waitUntil(ctx, []scope{{gvk, obj.GetNamespace()}}, func(ctx context.Context) (bool, error) {
		live, err := c.get(ctx, obj)
		if err != nil {
			if isTransient(err) {
				return false, nil
			}
			return false, err
		}
		if live == nil || obj.GetUID() != "" && live.GetUID() != obj.GetUID() {
			return true, nil
		}
		last = live
		if time.Since(start) >= reasonEvery {
			engine.Progress(ctx, "%s still exists%s", idOf(obj), finalizers(live))
		}
		return false, nil
	})
	if err == nil || ctx.Err() == nil || last == nil || interrupted(ctx) {
		return err
	}
	return problem.New(problem.DeleteStuck, err, "%s still exists%s", idOf(obj), keptBy(last))
}

// keptBy says what keeps an object from being deleted: its finalizers and, for a namespace, what its controller says is
// left in it.
func keptBy(obj *unstructured.Unstructured) string {
	text := finalizers(obj)
	conditions := conditionsOf(obj)
	for _, kind := range []corev1.NamespaceConditionType{
		corev1.NamespaceContentRemaining, corev1.NamespaceFinalizersRemaining, corev1.NamespaceDeletionDiscoveryFailure,
	} {
		if c := meta.FindStatusCondition(conditions, string(kind)); c != nil && c.Status == metav1.ConditionTrue {
			text += "; " + describe(c)
		}
	}
	return text
}

// pollEvery limits how late a change is seen where a watch misses it, such as behind a proxy that drops idle
// connections.
const pollEvery = 5 * time.Second

// scope is what one watch covers: a kind in one namespace, or in all with namespace "".
type scope struct {
	gvk       schema.GroupVersionKind
	namespace string
}

// waitUntil calls done at once, and again each time an object within the scopes changes, until it returns true or an
// error. When the context ends it returns the context's cause. Watches only say when to call done, which reads the
// objects itself: an event that is lost or seen twice does no harm.
func (c *Client) waitUntil(ctx context.Context, scopes []scope, done func(context.Context) (bool, error)) error {
	if ok, err := done(ctx); ok || err != nil {
		return err
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // done will be called anyway
		}
	}
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	for _, s := range scopes {
		watchers.Go(func() { c.watch(watching, s, notify) })
	}
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	defer engine.Waiting(ctx)()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-ticker.C:
		}
		if ok, err := done(ctx); ok || err != nil {
			return err
		}
	}
}

// watch calls notify at every event of a scope, and when a watch begins, for what happened while there was none.
func (c *Client) watch(ctx context.Context, s scope, notify func()) {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longestPause) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(s.gvk.GroupVersion().WithKind(s.gvk.Kind + "List"))
		w, err := c.api.Watch(ctx, list, client.InNamespace(s.namespace))
		if err == nil {
			pause = firstPause
			notify()
			follow(ctx, w, notify)
		}
		// A kind that is not served yet, or a watch that the server ended.
		if sleep(ctx, pause) != nil {
			return
		}
	}
}

// follow calls notify at every event until the watch or the context ends.
func follow(ctx context.Context, w watch.Interface, notify func()) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-w.ResultChan():
			if !open {
				return
			}
			notify()
		}
	}
}

// scopesOf returns the watches that show when objects may have become ready.
func (c *Client) scopesOf(objs objectList) []scope {
	seen := map[scope]bool{}
	var scopes []scope
	add := func(s scope) {
		if !seen[s] {
			seen[s] = true
			scopes = append(scopes, s)
		}
	}
	for _, obj := range objs {
		gvk := obj.GroupVersionKind()
		add(scope{gvk, obj.GetNamespace()})
		for _, other := range c.options.Kinds[gvk.GroupKind()].Watch {
			add(scope{other, obj.GetNamespace()})
		}
		if isWebhookConfiguration(gvk.GroupKind()) {
			add(scope{schema.GroupVersionKind{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"}, ""})
		}
	}
	return scopes
}
