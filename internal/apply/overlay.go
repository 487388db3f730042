package apply

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Overlay is fields that the lab sets on an object which may belong to someone else,
// such as a label on a namespace or on a Service. Each overlay has a field manager of
// its own, and puts none of the lab's labels on the object: no Set ever prunes or
// deletes it, and taking the overlay back leaves everything else of the object alone.
type Overlay struct {
	// Name makes the field manager: ambientlab-<Name>.
	Name string
	// Object holds the identity and only the fields to set.
	Object *unstructured.Unstructured
	// Create allows the object to be made where it does not exist. It is then deleted
	// when the overlay is taken back, unless others have come to use it.
	Create bool
}

// AnnotationCreated marks an object that an overlay has made.
const AnnotationCreated = "lab.opssec.in/created"

func (o Overlay) manager() string { return ManagedBy + "-" + o.Name }

// overlay prepares the server-side apply. A namespaced object that names no
// namespace is in "default".
func (c *Client) overlay(o Overlay) (write, error) {
	if o.Name == "" || o.Object == nil || o.Object.GetName() == "" {
		return write{}, fmt.Errorf("overlay %q names no object", o.Name)
	}
	obj, err := duplicate(o.Object)
	if err != nil {
		return write{}, fmt.Errorf("overlay %s: %w", o.Name, err)
	}
	inNamespace, err := c.namespaced(obj.GroupVersionKind(), Set{})
	if err != nil {
		return write{}, fmt.Errorf("looking up kind %s: %w", obj.GetKind(), err)
	}
	switch {
	case !inNamespace:
		obj.SetNamespace("")
	case obj.GetNamespace() == "":
		obj.SetNamespace("default")
	}
	disown(obj)
	return write{obj: obj, manager: o.manager()}, nil
}

// DiffOverlay says what ApplyOverlay would change. It is nil when the fields are set
// and are the overlay's: the same values set by someone else alone would go away with
// them, so they are claimed too.
func (c *Client) DiffOverlay(ctx context.Context, o Overlay) (*engine.Change, error) {
	change, _, err := c.planOverlay(ctx, o)
	return change, err
}

// planOverlay also gives the write that makes the change.
func (c *Client) planOverlay(ctx context.Context, o Overlay) (*engine.Change, write, error) {
	w, err := c.overlay(o)
	if err != nil {
		return nil, w, err
	}
	live, err := c.get(ctx, w.obj)
	if err != nil {
		return nil, w, err
	}
	if o.Create && (live == nil || created(live)) {
		annotate(w.obj, AnnotationCreated, "true")
	}
	if live == nil && !o.Create {
		return &engine.Change{Object: idOf(w.obj).String(), Action: engine.Update, Detail: "it does not exist yet"}, w, nil
	}
	change, err := c.plan(ctx, w, live)
	switch {
	case err != nil:
		return nil, w, fmt.Errorf("comparing overlay %s with the cluster: %w", o.Name, err)
	case change == nil && !manages(live, w.manager):
		return &engine.Change{Object: idOf(w.obj).String(), Action: engine.Update, Detail: "claim the fields as " + w.manager}, w, nil
	}
	return change, w, nil
}

func created(obj client.Object) bool {
	_, marked := obj.GetAnnotations()[AnnotationCreated]
	return marked
}

func manages(obj client.Object, manager string) bool {
	for _, f := range obj.GetManagedFields() {
		if f.Manager == manager {
			return true
		}
	}
	return false
}

// ApplyOverlay sets the overlay's fields. An object that does not exist is an error
// unless the overlay may create it.
func (c *Client) ApplyOverlay(ctx context.Context, o Overlay) error {
	change, w, err := c.planOverlay(ctx, o)
	if err != nil || change == nil {
		return err
	}
	if !o.Create {
		live, err := c.get(ctx, w.obj)
		if err != nil {
			return err
		}
		if live == nil {
			return problem.New(problem.ObjectMissing, nil, "%s does not exist, and %s is to be set on it", idOf(w.obj), o.Name)
		}
		// Of this very object: a server-side apply would make one that is deleted
		// in between.
		w.obj.SetUID(live.GetUID())
	}
	if _, err := c.write(ctx, w); err != nil {
		return fmt.Errorf("setting overlay %s: %w", o.Name, err)
	}
	engine.Changed(ctx, *change)
	return nil
}
