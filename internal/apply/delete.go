package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Delete deletes a part: every object with its labels, whether or not the Set still lists it, dependants first. It
// returns when they are gone. Of an object that existed before the lab only the lab's fields are removed, and a CRD or
// a namespace that objects of others need stays; both are among the changes.
func (c *Client) Delete(ctx context.Context, set Set) ([]engine.Change, error) {
	if set.Name == "" {
		return nil, errors.New("a part without a name cannot be deleted")
	}
	return c.deletePart(ctx, set.Name)
}

// DeleteAll deletes what is left of every part of the lab, except for the parts in keep: custom resources before their
// CRDs, and namespaces last. Only a plan knows the order of its parts, so this is for what is left after the plan was
// undone.
func (c *Client) DeleteAll(ctx context.Context, keep ...string) ([]engine.Change, error) {
	return c.deletePart(ctx, "", keep...)
}

func (c *Client) deletePart(ctx context.Context, part string, keep ...string) ([]engine.Change, error) {
	found, err := c.owned(ctx, part)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(obj *metav1.PartialObjectMetadata) bool {
		return slices.Contains(keep, obj.GetLabels()[LabelPart])
	})
	made := &record{}
	if err := c.remove(ctx, found, made); err != nil {
		return made.changes, fmt.Errorf("deleting %s: %w", cmp.Or(part, "lab "+c.lab), err)
	}
	return made.changes, nil
}

// DeleteGenerated deletes the objects of some kinds that match, and returns when they are gone. It is for what
// controllers have made without an owner; kinds that the cluster does not serve, or that this user may not list, are
// skipped. Where keep gives a reason, the objects stay and the changes say why.
func (c *Client) DeleteGenerated(
	ctx context.Context, kinds []schema.GroupVersionKind, match func(client.Object) bool, keep string,
) error {
	for _, gvk := range kinds {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := c.api.List(ctx, list)
		switch {
		case err == nil:
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err), kindUnknown(err):
			continue
		default:
			return fmt.Errorf("listing generated objects of kind %s: %w", gvk.Kind, err)
		}
		for i := range list.Items {
			obj := &list.Items[i]
			obj.SetGroupVersionKind(gvk)
			switch {
			case obj.GetDeletionTimestamp() != nil || !match(obj):
			case keep != "":
				engine.Changed(ctx, left(obj, keep))
			default:
				if err := c.deleteOne(ctx, obj, &record{}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Owned lists the objects with the labels of the lab's parts, by part.
func (c *Client) Owned(ctx context.Context) (map[string][]string, error) {
	found, err := c.owned(ctx, "")
	if err != nil {
		return nil, err
	}
	parts := map[string][]string{}
	for _, obj := range slices.Backward(found) {
		part := obj.GetLabels()[LabelPart]
		parts[part] = append(parts[part], idOf(obj).String())
	}
	return parts, nil
}

// deletionOrder is the reverse order of the stages: custom resources while their CRDs and controllers exist, namespaces
// last.
func deletionOrder(a, b client.Object) int {
	return cmp.Or(
		cmp.Compare(stageOf(b.GetObjectKind().GroupVersionKind()), stageOf(a.GetObjectKind().GroupVersionKind())),
		cmp.Compare(idOf(a).String(), idOf(b).String()),
	)
}

const released = "fields of the lab removed: the object existed before the lab"

// LeftInPlace begins the detail of a change that says what a deletion left in the cluster, and why.
const LeftInPlace = "left in place: "

// removal is the change of an object that is removed from its part.
func removal(obj client.Object) engine.Change {
	if adopted(obj) {
		return engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: released}
	}
	return engine.Change{Object: idOf(obj).String(), Action: engine.Delete}
}

// left is the change of an object that a deletion leaves in the cluster.
func left(obj client.Object, reason string) engine.Change {
	return engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: LeftInPlace + reason}
}

// remove removes objects from their part, stage by stage, and waits until each stage is gone. The objects are in the
// order of their deletion.
func (c *Client) remove(ctx context.Context, objs []*metav1.PartialObjectMetadata, made *record) error {
	for len(objs) > 0 {
		stage := stageOf(objs[0].GroupVersionKind())
		n := 1
		for n < len(objs) && stageOf(objs[n].GroupVersionKind()) == stage {
			n++
		}
		err := inParallel(ctx, n, func(ctx context.Context, i int) error { return c.removeOne(ctx, objs[i], made) })
		if err != nil {
			return err
		}
		objs = objs[n:]
	}
	return nil
}

func (c *Client) removeOne(ctx context.Context, obj *metav1.PartialObjectMetadata, made *record) error {
	if adopted(obj) {
		if err := c.releaseFields(ctx, obj, ManagedBy); err != nil {
			return err
		}
		made.add(ctx, removal(obj))
		return nil
	}
	why, err := c.neededByOthers(ctx, obj)
	if err != nil {
		return err
	}
	if why != "" {
		if err := c.removeLabels(ctx, obj, LabelManagedBy, LabelName, LabelPart); err != nil {
			return fmt.Errorf("leaving %s in place: %w", idOf(obj), err)
		}
		made.add(ctx, left(obj, why))
		return nil
	}
	return c.deleteOne(ctx, obj, made)
}

// deleteOne deletes an object and returns when it is gone.
func (c *Client) deleteOne(ctx context.Context, obj *metav1.PartialObjectMetadata, made *record) error {
	// Pods must be gone before what they run on, such as a network plug-in. So a workload, and an object that pods are
	// made for, is deleted after what it owns.
	policy := metav1.DeletePropagationBackground
	gvk := obj.GroupVersionKind()
	if stageOf(gvk) == stageWorkload || c.options.Kinds[gvk.GroupKind()].Pods != nil {
		policy = metav1.DeletePropagationForeground
	}
	uid := obj.GetUID()
	err := c.api.Delete(ctx, obj, &client.DeleteOptions{
		PropagationPolicy: &policy,
		// Not another object of that name, created since this one was listed.
		Preconditions: &metav1.Preconditions{UID: &uid},
	})
	switch {
	case err == nil:
	case apierrors.IsNotFound(err), kindUnknown(err), apierrors.IsConflict(err): // a conflict is about the UID
		return nil
	case apierrors.IsForbidden(err):
		return problem.New(problem.ApplyForbidden, err, "deleting %s", idOf(obj))
	default:
		return fmt.Errorf("deleting %s: %w", idOf(obj), err)
	}
	if err := c.waitGone(ctx, obj); err != nil {
		return err
	}
	made.add(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Delete})
	return nil
}

// releaseFields gives up every field that manager owns of an object: fields that it alone has set are removed, fields
// that others have set too stay as they are.
func (c *Client) releaseFields(ctx context.Context, obj client.Object, manager string) error {
	bare := &unstructured.Unstructured{}
	bare.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	bare.SetNamespace(obj.GetNamespace())
	bare.SetName(obj.GetName())
	bare.SetUID(obj.GetUID()) // so that an object that was deleted meanwhile is not created again
	w := &write{desired: bare, obj: bare, manager: manager}
	err := persist(ctx, bare, func() error {
		_, err := c.send(ctx, w, false)
		if uidMismatch(err) {
			return nil // the object is gone, and its fields with it
		}
		return c.explainWrite(ctx, w, err)
	})
	if err != nil {
		return fmt.Errorf("removing the lab's fields of %s: %w", idOf(obj), err)
	}
	return nil
}

// removeLabels removes labels from an object that stays, also those that other field managers have set.
func (c *Client) removeLabels(ctx context.Context, obj client.Object, keys ...string) error {
	none := map[string]any{}
	for _, key := range keys {
		none[key] = nil
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": none}})
	if err != nil {
		return err
	}
	err = c.api.Patch(ctx, obj, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(ManagedBy))
	return client.IgnoreNotFound(err)
}

// remove removes the overlay's fields wherever they are set, and deletes the object that the overlay has created, if no
// objects of others need it. The settings may name another object by now, so every object of the kind is looked at.
func (o Overlay) remove(ctx context.Context, c *Client, _ string) error {
	w, err := c.overlay(o)
	if err != nil {
		return err
	}
	gvk := w.desired.GroupVersionKind()
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err = c.api.List(ctx, list)
	switch {
	case kindUnknown(err), apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("looking for objects with overlay %s: %w", o.Name, err)
	}
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(gvk)
		if manages(&list.Items[i], w.manager) || o.Exclusive && o.setOn(&list.Items[i], w.desired) {
			if err := c.removeOverlay(ctx, o, &list.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Client) removeOverlay(ctx context.Context, o Overlay, obj *metav1.PartialObjectMetadata) error {
	detail := "overlay " + o.Name + " removed"
	if created(obj) {
		why, err := c.neededByOthers(ctx, obj)
		if err != nil {
			return err
		}
		if why == "" {
			return c.deleteOne(ctx, obj, &record{})
		}
		detail = LeftInPlace + why
	}
	if manages(obj, o.manager()) {
		if err := c.releaseFields(ctx, obj, o.manager()); err != nil {
			return err
		}
	}
	if o.Exclusive {
		keys := slices.Collect(maps.Keys(o.Object.GetLabels()))
		if err := c.removeLabels(ctx, obj, keys...); err != nil {
			return fmt.Errorf("removing the labels of overlay %s from %s: %w", o.Name, idOf(obj), err)
		}
	}
	engine.Changed(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: detail})
	return nil
}

// setOn says that obj is the overlay's object and has one of its labels.
func (o Overlay) setOn(obj, desired client.Object) bool {
	if client.ObjectKeyFromObject(obj) != client.ObjectKeyFromObject(desired) {
		return false
	}
	for key, value := range o.Object.GetLabels() {
		if has, found := obj.GetLabels()[key]; found && has == value {
			return true
		}
	}
	return false
}
