package apply

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// inUse says why an object of the lab's must stay because of what others made since:
// with a CRD go all objects of its kind, and with a namespace all that is in it, and
// the lab deletes nothing that is not its own. It is empty where nothing stands in the
// way.
func (c *Client) inUse(ctx context.Context, obj *metav1.PartialObjectMetadata) (string, error) {
	var kinds []schema.GroupVersionKind
	var namespace string
	switch {
	case obj.GroupVersionKind().GroupKind() == crdKind():
		crd, err := c.get(ctx, obj)
		if err != nil || crd == nil {
			return "", err
		}
		kinds = instances(crd)
	case obj.Kind == "Namespace":
		kinds, namespace = inhabitants(), obj.Name
	}
	var foreign []string
	for _, gvk := range kinds {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		if err := c.api.List(ctx, list, client.InNamespace(namespace)); err != nil {
			if kindUnknown(err) {
				continue
			}
			return "", fmt.Errorf("looking for what others made that needs %s: %w", idOf(obj), err)
		}
		for i := range list.Items {
			list.Items[i].SetGroupVersionKind(gvk)
			if c.foreign(&list.Items[i]) {
				foreign = append(foreign, idOf(&list.Items[i]).String())
			}
		}
	}
	switch len(foreign) {
	case 0:
		return "", nil
	case 1:
		return foreign[0] + " is not the lab's and needs it", nil
	default:
		return fmt.Sprintf("%s and %d more are not the lab's and need it", foreign[0], len(foreign)-1), nil
	}
}

// instances gives the kind that a CRD defines, in its stored version.
func instances(crd *unstructured.Unstructured) []schema.GroupVersionKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	for _, v := range versions {
		v, _ := v.(map[string]any)
		if name, ok := v["name"].(string); ok && v["served"] == true && v["storage"] == true {
			return []schema.GroupVersionKind{{Group: group, Version: name, Kind: kind}}
		}
	}
	return nil
}

// inhabitants are the kinds that make a namespace someone's. Those that Kubernetes and
// Istio put into every namespace (ConfigMaps, Secrets, ServiceAccounts) are not among
// them.
func inhabitants() []schema.GroupVersionKind {
	return []schema.GroupVersionKind{
		{Version: "v1", Kind: "Pod"},
		{Version: "v1", Kind: "Service"},
		{Version: "v1", Kind: "PersistentVolumeClaim"},
		{Group: "apps", Version: "v1", Kind: "Deployment"},
		{Group: "apps", Version: "v1", Kind: "StatefulSet"},
		{Group: "apps", Version: "v1", Kind: "DaemonSet"},
		{Group: "batch", Version: "v1", Kind: "Job"},
		{Group: "batch", Version: "v1", Kind: "CronJob"},
	}
}

// foreign tells whether an object is neither the lab's nor a by-product of what the
// lab installed: istiod makes the GatewayClasses, MetalLB its status objects.
func (c *Client) foreign(obj client.Object) bool {
	if obj.GetLabels()[LabelName] == c.lab || len(obj.GetOwnerReferences()) > 0 || obj.GetDeletionTimestamp() != nil {
		return false
	}
	controllers := []string{"pilot-discovery", "istio.io/gateway-controller", "controller", "speaker"}
	return !slices.ContainsFunc(obj.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return slices.Contains(controllers, f.Manager) && f.Subresource == ""
	})
}
