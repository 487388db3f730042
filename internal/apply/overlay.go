package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

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
	// Create allows the object to be made where it does not exist. It is not deleted
	// when the overlay is taken back.
	Create bool
}

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
	w, err := c.overlay(o)
	if err != nil {
		return nil, err
	}
	live, err := c.get(ctx, w.obj)
	if err != nil {
		return nil, err
	}
	if live == nil && !o.Create {
		return &engine.Change{Object: idOf(w.obj).String(), Action: engine.Update, Detail: "it does not exist yet"}, nil
	}
	change, err := c.plan(ctx, w, live)
	switch {
	case err != nil:
		return nil, fmt.Errorf("comparing overlay %s with the cluster: %w", o.Name, err)
	case change == nil && !manages(live, w.manager):
		return &engine.Change{Object: idOf(w.obj).String(), Action: engine.Update, Detail: "claim the fields as " + w.manager}, nil
	}
	return change, nil
}

func manages(obj *unstructured.Unstructured, manager string) bool {
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
	change, err := c.DiffOverlay(ctx, o)
	if err != nil || change == nil {
		return err
	}
	w, err := c.overlay(o)
	if err != nil {
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

// RemoveOverlay gives the overlay's fields up, where the object exists and has them.
func (c *Client) RemoveOverlay(ctx context.Context, o Overlay) error {
	w, err := c.overlay(o)
	if err != nil {
		return err
	}
	live, err := c.get(ctx, w.obj)
	if err != nil || live == nil || !manages(live, w.manager) {
		return err
	}
	w.obj.SetUID(live.GetUID())
	if err := c.release(ctx, w.obj, w.manager); err != nil {
		return err
	}
	engine.Changed(ctx, engine.Change{
		Object: idOf(w.obj).String(), Action: engine.Update, Detail: "overlay " + o.Name + " taken back",
	})
	return nil
}

// OverlayStep is the step that sets an overlay, and takes it back when undone.
func OverlayStep(connect func(context.Context) (*Client, error), id, title string, needs []string, o Overlay) engine.Step {
	return engine.Step{
		ID: id, Title: title, Needs: needs,
		Check: func(ctx context.Context) (engine.Status, error) {
			c, err := reach(ctx, connect)
			if err != nil {
				return engine.Status{}, err
			}
			if c == nil {
				return engine.Status{Message: unjudged}, nil
			}
			change, err := c.DiffOverlay(ctx, o)
			if err != nil {
				return engine.Status{}, err
			}
			if change != nil {
				return engine.Status{Message: summary([]engine.Change{*change})}, nil
			}
			return engine.Status{Holds: true, Message: "set"}, nil
		},
		Do: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			return c.ApplyOverlay(ctx, o)
		},
		Undo: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			return c.RemoveOverlay(ctx, o)
		},
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			c, err := reach(ctx, connect)
			if err != nil {
				return nil, err
			}
			if c == nil {
				return foreseeOverlay(o)
			}
			change, err := c.DiffOverlay(ctx, o)
			if err != nil || change == nil {
				return nil, err
			}
			return []engine.Change{*change}, nil
		},
		Explain: func() []string { return []string{explainOverlay(o)} },
	}
}

// explainOverlay gives kubectl's own command for what an overlay mostly is: labels.
func explainOverlay(o Overlay) string {
	command := "kubectl"
	if ns := o.Object.GetNamespace(); ns != "" {
		command += " -n " + ns
	}
	kind, name := strings.ToLower(o.Object.GetKind()), o.Object.GetName()
	labels := o.Object.GetLabels()
	if len(labels) == 0 || len(o.Object.Object) > 3 {
		return fmt.Sprintf("%s apply --server-side --field-manager=%s -f %s.yaml   # %s", command, o.manager(), o.Name, idOf(o.Object))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name += " " + key + "=" + labels[key]
	}
	return fmt.Sprintf("%s label %s %s", command, kind, name)
}
