package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Delete takes the part away: every object that bears its labels, whether or not the
// Set still lists it, dependants first, and returns when they are gone. What was there
// before the lab is given back, not deleted, and a CRD or a namespace that others have
// come to use is left to them; both are among the changes.
func (c *Client) Delete(ctx context.Context, set Set) ([]engine.Change, error) {
	if set.Name == "" {
		return nil, errors.New("deleting a part without a name")
	}
	return c.deletePart(ctx, set.Name)
}

// DeleteAll takes away what is left of every part of the lab, but for the parts to be
// kept: custom resources before their CRDs, and namespaces last. Parts have an order
// that only their plan knows, so this is for what remains after the plan was undone.
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
	record := &record{}
	if err := c.remove(ctx, found, record); err != nil {
		return record.changes, fmt.Errorf("deleting %s: %w", cmp.Or(part, "lab "+c.lab), err)
	}
	return record.changes, nil
}

// Owned lists what bears the labels of the lab's parts in the cluster, by part.
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

// stale lists what bears a part's labels and is not, or no longer, of its objects.
func (c *Client) stale(ctx context.Context, part string, objs []*unstructured.Unstructured) ([]*metav1.PartialObjectMetadata, error) {
	found, err := c.owned(ctx, part)
	if err != nil {
		return nil, err
	}
	wanted := make(map[id]bool, len(objs))
	for _, obj := range objs {
		wanted[idOf(obj)] = true
	}
	return slices.DeleteFunc(found, func(obj *metav1.PartialObjectMetadata) bool {
		return wanted[idOf(obj)] || obj.GetDeletionTimestamp() != nil
	}), nil
}

// deletionOrder is the order of the stages backwards: custom resources while their
// CRDs and controllers still live, namespaces at the very end.
func deletionOrder(a, b client.Object) int {
	return cmp.Or(
		cmp.Compare(stageOf(b.GetObjectKind().GroupVersionKind()), stageOf(a.GetObjectKind().GroupVersionKind())),
		cmp.Compare(idOf(a).String(), idOf(b).String()),
	)
}

func adopted(obj client.Object) bool {
	_, marked := obj.GetAnnotations()[AnnotationAdopted]
	return marked
}

const givenBack = "given back: it was there before the lab"

// LeftInPlace begins the detail of a change that says what a deletion left, and why.
const LeftInPlace = "left in place: "

// removal is the change that removing an object is.
func removal(obj client.Object) engine.Change {
	if adopted(obj) {
		return engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: givenBack}
	}
	return engine.Change{Object: idOf(obj).String(), Action: engine.Delete}
}

// remove takes objects away stage by stage and waits until each stage is gone. The
// objects are in the order of their deletion.
func (c *Client) remove(ctx context.Context, objs []*metav1.PartialObjectMetadata, record *record) error {
	for len(objs) > 0 {
		stage := stageOf(objs[0].GroupVersionKind())
		n := slices.IndexFunc(objs, func(o *metav1.PartialObjectMetadata) bool { return stageOf(o.GroupVersionKind()) != stage })
		if n < 0 {
			n = len(objs)
		}
		group, gctx := errgroup.WithContext(ctx)
		group.SetLimit(parallel)
		for _, obj := range objs[:n] {
			group.Go(func() error { return c.removeOne(gctx, obj, record) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		objs = objs[n:]
	}
	return nil
}

func (c *Client) removeOne(ctx context.Context, obj *metav1.PartialObjectMetadata, record *record) error {
	if adopted(obj) {
		if err := c.release(ctx, obj, ManagedBy); err != nil {
			return err
		}
		record.add(ctx, removal(obj))
		return nil
	}
	why, err := c.inUse(ctx, obj)
	if err != nil {
		return err
	}
	if why != "" {
		if err := c.leave(ctx, obj); err != nil {
			return err
		}
		record.add(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: LeftInPlace + why})
		return nil
	}
	return c.deleteOne(ctx, obj, record)
}

// deleteOne deletes an object and returns when it is gone.
func (c *Client) deleteOne(ctx context.Context, obj *metav1.PartialObjectMetadata, record *record) error {
	// Pods must be gone before what they run on is (istio-cni, for one): workloads,
	// and Gateways, whose controller makes workloads of them, go after what they own.
	policy := metav1.DeletePropagationBackground
	if stageOf(obj.GroupVersionKind()) == stageWorkload || obj.Kind == "Gateway" {
		policy = metav1.DeletePropagationForeground
	}
	uid := obj.GetUID()
	err := c.api.Delete(ctx, obj, &client.DeleteOptions{
		PropagationPolicy: &policy,
		// Not a namesake that someone made since it was listed.
		Preconditions: &metav1.Preconditions{UID: &uid},
	})
	switch {
	case err == nil:
	case apierrors.IsNotFound(err), kindUnknown(err):
		return nil
	case apierrors.IsForbidden(err):
		return problem.New(problem.ApplyForbidden, err, "deleting %s", idOf(obj))
	default:
		return fmt.Errorf("deleting %s: %w", idOf(obj), err)
	}
	if err := c.waitGone(ctx, obj); err != nil {
		return err
	}
	record.add(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Delete})
	return nil
}

// release gives up every field that manager owns of an object: what it alone had set
// goes away, what others set too stays as it is.
func (c *Client) release(ctx context.Context, obj client.Object, manager string) error {
	bare := &unstructured.Unstructured{}
	bare.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	bare.SetNamespace(obj.GetNamespace())
	bare.SetName(obj.GetName())
	bare.SetUID(obj.GetUID()) // so that an object deleted in between is not made anew
	if _, err := c.write(ctx, write{obj: bare, manager: manager}); err != nil {
		if live, getErr := c.get(ctx, obj); getErr == nil && (live == nil || live.GetUID() != obj.GetUID()) {
			return nil
		}
		return fmt.Errorf("giving %s back: %w", idOf(obj), err)
	}
	return nil
}

// leave takes the lab's labels off an object that stays.
func (c *Client) leave(ctx context.Context, obj client.Object) error {
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:null,%q:null,%q:null}}}`, LabelManagedBy, LabelName, LabelPart)
	err := c.api.Patch(ctx, obj, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(ManagedBy))
	if err := client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("leaving %s in place: %w", idOf(obj), err)
	}
	return nil
}
