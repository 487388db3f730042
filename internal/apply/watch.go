package apply

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// relook bounds how long a look can be late when a watch silently misses something: a
// proxy between here and the API server that drops idle connections, say.
const relook = 5 * time.Second

// scope is what one watch covers: a kind in one namespace, or everywhere.
type scope struct {
	gvk       schema.GroupVersionKind
	namespace string
}

// await calls look at once, and again each time something within the scopes changes,
// until look is content or fails, or the context ends; it then returns the context's
// cause. Watches only say when to look: look reads for itself, so an event lost or
// seen twice is of no consequence.
func (c *Client) await(ctx context.Context, scopes []scope, look func(context.Context) (bool, error)) error {
	if done, err := look(ctx); done || err != nil {
		return err
	}
	kicked := make(chan struct{}, 1)
	kick := func() {
		select {
		case kicked <- struct{}{}:
		default: // a look is due anyway
		}
	}
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	defer stop()
	for _, s := range scopes {
		watchers.Go(func() { c.watch(watching, s, kick) })
	}
	ticker := time.NewTicker(relook)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-kicked:
		case <-ticker.C:
		}
		if done, err := look(ctx); done || err != nil {
			return err
		}
	}
}

// watch kicks at every event of a scope, and once when a watch begins, for what
// happened while there was none.
func (c *Client) watch(ctx context.Context, s scope, kick func()) {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longPause) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(s.gvk.GroupVersion().WithKind(s.gvk.Kind + "List"))
		w, err := c.api.Watch(ctx, list, client.InNamespace(s.namespace))
		if err == nil {
			pause = firstPause
			kick()
			follow(ctx, w, kick)
		}
		// A kind that is not served yet, or a watch that the server ended.
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// follow kicks at every event until the watch or the context ends.
func follow(ctx context.Context, w watch.Interface, kick func()) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, open := <-w.ResultChan():
			if !open {
				return
			}
			kick()
		}
	}
}

// scopesOf gives the watches that tell when objects may have become ready.
func scopesOf(objs []*unstructured.Unstructured) []scope {
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
		switch {
		case gvk.Group == gatewayGroup && gvk.Kind == "Gateway":
			add(scope{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, obj.GetNamespace()})
		case isWebhookConfiguration(gvk.GroupKind()):
			add(scope{schema.GroupVersionKind{Group: "discovery.k8s.io", Version: "v1", Kind: "EndpointSlice"}, ""})
		}
	}
	return scopes
}
