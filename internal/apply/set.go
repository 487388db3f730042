package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Part is what a step applies: Objects or an Overlay.
type Part interface {
	// desired returns what the part wants to write. With prune, the objects are the lab's: those with the part's labels
	// that are not among them are deleted, and the step waits until they are ready.
	desired(context.Context, *Client) (writes []*write, prune bool, err error)
	// remove undoes the part; id is its step's.
	remove(ctx context.Context, c *Client, id string) error
	// explain returns the commands for the same effect.
	explain(ctx context.Context, id string) []string
}

// Set is the objects of one part of a lab. An object belongs to one part only.
type Set struct {
	// Name is the part's name, a valid label value.
	Name string
	// Objects are what the part consists of, in any order. They are not changed.
	Objects []*unstructured.Unstructured
	// Namespace is for namespaced objects that name none; "default" when empty.
	Namespace string
	// Force takes fields over from other field managers instead of reporting the conflict. It is for clusters that the
	// lab created itself.
	Force bool
	// NotAwaited tells of an object that it cannot become ready yet: it is applied, and not waited for. nil means that
	// every object is waited for.
	NotAwaited func(*unstructured.Unstructured) bool
	// BeforePods is called before the objects that make pods are written, and those are not written where it fails. nil
	// does nothing.
	BeforePods func(context.Context) error
}

// Objects is a Part that consists of the whole objects of a Set. It is called again for every check, and not for
// undoing the part: what was installed from files has to be deleted after the files are gone.
type Objects func(context.Context) (Set, error)

func (o Objects) desired(ctx context.Context, c *Client) ([]*write, bool, error) {
	set, err := o(ctx)
	if err != nil {
		return nil, false, err
	}
	writes, err := c.writes(set)
	return writes, true, err
}

func (o Objects) remove(ctx context.Context, c *Client, id string) error {
	_, err := c.Delete(ctx, Set{Name: id})
	return err
}

// writes prepares the server-side applies of a Set, sorted by stage and name.
func (c *Client) writes(set Set) ([]*write, error) {
	objs, err := c.objects(set)
	if err != nil {
		return nil, err
	}
	writes := make([]*write, len(objs))
	for i, obj := range objs {
		writes[i] = &write{desired: obj, manager: ManagedBy, force: set.Force, beforePods: set.BeforePods}
		writes[i].notAwaited = set.NotAwaited != nil && set.NotAwaited(obj)
	}
	return writes, nil
}

// objects returns copies of the Set's objects as they are to be applied: with the lab's labels, in their namespace,
// without the fields of controllers, sorted by stage and name.
func (c *Client) objects(set Set) (objectList, error) {
	if faults := validation.IsValidLabelValue(set.Name); set.Name == "" || len(faults) > 0 {
		return nil, fmt.Errorf("part name %q cannot be a label's value: %s", set.Name, strings.Join(faults, "; "))
	}
	seen := make(map[id]bool, len(set.Objects))
	objs := make(objectList, 0, len(set.Objects))
	for i, original := range set.Objects {
		if original.GetName() == "" || original.GetKind() == "" || original.GetAPIVersion() == "" {
			return nil, fmt.Errorf("object %d of part %s lacks an apiVersion, a kind or a name", i+1, set.Name)
		}
		obj, err := c.prepare(original, set)
		if err != nil {
			return nil, fmt.Errorf("part %s: %w", set.Name, err)
		}
		c.label(obj, set.Name)
		fingerprint(obj)
		if seen[idOf(obj)] {
			return nil, fmt.Errorf("part %s holds %s twice", set.Name, idOf(obj))
		}
		seen[idOf(obj)] = true
		objs = append(objs, obj)
	}
	slices.SortStableFunc(objs, func(a, b *unstructured.Unstructured) int {
		return cmp.Or(
			cmp.Compare(stageOf(a.GroupVersionKind()), stageOf(b.GroupVersionKind())),
			cmp.Compare(idOf(a).String(), idOf(b).String()),
		)
	})
	return objs, nil
}

// prepare copies an object, puts it into its namespace and drops the fields that controllers write.
func (c *Client) prepare(original *unstructured.Unstructured, set Set) (*unstructured.Unstructured, error) {
	obj, err := deepCopy(original)
	if err != nil {
		return nil, err
	}
	namespaced, err := c.namespaced(obj.GroupVersionKind(), set)
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking up kind %s: %w", obj.GetKind(), err)
	case !namespaced:
		obj.SetNamespace("")
	case obj.GetNamespace() == "":
		obj.SetNamespace(cmp.Or(set.Namespace, "default"))
	}
	dropControllerFields(obj)
	return obj, nil
}

// Overlay is a Part that consists of fields that the lab sets on an object which may belong to others, such as a label
// on a namespace or on a Service. Each overlay has a field manager of its own and puts none of the lab's labels on the
// object: no Set ever prunes or deletes it, and removing the overlay changes nothing else of the object.
type Overlay struct {
	// Name makes the field manager: ambientlab-<Name>.
	Name string
	// Object holds the identity and only the fields to set. A namespaced object that names no namespace is in
	// "default".
	Object *unstructured.Unstructured
	// Create allows the object to be created where it does not exist. It is deleted with the overlay, unless objects of
	// others need it by then.
	Create bool
	// Exclusive says that the labels are the overlay's even where others have set them too, with kubectl for example:
	// they are removed with the overlay. It is for objects of the lab's own.
	Exclusive bool
}

// AnnotationCreated marks an object that an overlay has created.
const AnnotationCreated = "lab.opssec.in/created"

func (o Overlay) manager() string { return ManagedBy + "-" + o.Name }

func (o Overlay) desired(_ context.Context, c *Client) ([]*write, bool, error) {
	w, err := c.overlay(o)
	if err != nil {
		return nil, false, err
	}
	return []*write{w}, false, nil
}

// overlay prepares the server-side apply of an Overlay.
func (c *Client) overlay(o Overlay) (*write, error) {
	if o.Name == "" || o.Object == nil || o.Object.GetName() == "" {
		return nil, fmt.Errorf("overlay %q names no object", o.Name)
	}
	obj, err := c.prepare(o.Object, Set{})
	if err != nil {
		return nil, fmt.Errorf("overlay %s: %w", o.Name, err)
	}
	return &write{desired: obj, manager: o.manager(), overlay: o.Name, create: o.Create}, nil
}
