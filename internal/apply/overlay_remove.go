package apply

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/engine"
)

// RemoveOverlay gives the overlay's fields up wherever they are set, and deletes what
// the overlay has made and nobody else uses. Not the object that it names today is
// taken for the one that it was set on: every object of its kind is looked at.
func (c *Client) RemoveOverlay(ctx context.Context, o Overlay) error {
	w, err := c.overlay(o)
	if err != nil {
		return err
	}
	gvk := w.obj.GroupVersionKind()
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err = c.api.List(ctx, list)
	switch {
	case kindUnknown(err), apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("looking for overlay %s: %w", o.Name, err)
	}
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(gvk)
		if manages(&list.Items[i], w.manager) {
			if err := c.removeOverlay(ctx, o, &list.Items[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Client) removeOverlay(ctx context.Context, o Overlay, obj *metav1.PartialObjectMetadata) error {
	detail := "overlay " + o.Name + " taken back"
	if created(obj) {
		why, err := c.inUse(ctx, obj)
		if err != nil {
			return err
		}
		if why == "" {
			return c.deleteOne(ctx, obj, &record{})
		}
		detail = LeftInPlace + why
	}
	if err := c.release(ctx, obj, o.manager()); err != nil {
		return err
	}
	engine.Changed(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: detail})
	return nil
}
