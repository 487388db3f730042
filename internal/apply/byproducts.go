package apply

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/engine"
)

// DeleteByProducts takes away what istiod itself has made since a moment and leaves
// behind when it goes: whom to trust, in every namespace of the cluster; and, where the
// namespace it ran in stays, its authority and its elections. Where another istiod is
// in the cluster they may be that one's, and are left to it.
func (c *Client) DeleteByProducts(ctx context.Context, since time.Time) error {
	other, err := c.anotherIstiod(ctx)
	if err != nil {
		return err
	}
	for _, gvk := range []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"},
		{Version: "v1", Kind: "Secret"},
		{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
		{Group: gatewayGroup, Version: "v1", Kind: "GatewayClass"},
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		err := c.api.List(ctx, list)
		switch {
		case err == nil:
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err), kindUnknown(err):
			continue
		default:
			return fmt.Errorf("listing what istiod made of kind %s: %w", gvk.Kind, err)
		}
		for i := range list.Items {
			obj := &list.Items[i]
			obj.SetGroupVersionKind(gvk)
			if !madeByIstiod(obj) || obj.CreationTimestamp.Time.Before(since) || obj.GetDeletionTimestamp() != nil {
				continue
			}
			if other != "" {
				engine.Changed(ctx, engine.Change{Object: idOf(obj).String(), Action: engine.Update, Detail: LeftInPlace + other + " may need it"})
				continue
			}
			if err := c.deleteOne(ctx, obj, &record{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// madeByIstiod tells what istiod makes without an owner.
func madeByIstiod(obj client.Object) bool {
	return writtenByIstiod(obj) &&
		(isRootCertificate(obj) || byProduct(obj) || obj.GetObjectKind().GroupVersionKind().Kind == "Lease")
}

// anotherIstiod names what is left of an Istio control plane, or is empty. An external
// one has no Deployment here, but the webhook that injects its sidecars.
func (c *Client) anotherIstiod(ctx context.Context) (string, error) {
	for _, look := range []struct {
		gvk    schema.GroupVersionKind
		labels client.MatchingLabels
	}{
		{schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, client.MatchingLabels{"app": "istiod"}},
		{schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, client.MatchingLabels{"app": "istiod"}},
		{schema.GroupVersionKind{Group: admissionGroup, Version: "v1", Kind: "MutatingWebhookConfiguration"}, client.MatchingLabels{"app": "sidecar-injector"}},
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(look.gvk.GroupVersion().WithKind(look.gvk.Kind + "List"))
		if err := c.api.List(ctx, list, look.labels); err != nil {
			return "", fmt.Errorf("looking for another istiod: %w", err)
		}
		for i := range list.Items {
			if list.Items[i].GetDeletionTimestamp() == nil {
				list.Items[i].SetGroupVersionKind(look.gvk)
				return idOf(&list.Items[i]).String(), nil
			}
		}
	}
	return "", nil
}
