package apply

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// inUse says why an object of the lab's must stay because of what others made since:
// with a CRD go all objects of its kind, and with a namespace all that is in it, and
// the lab deletes nothing that is not its own. It is empty where nothing stands in the
// way.
func (c *Client) inUse(ctx context.Context, obj client.Object) (string, error) {
	var kinds []schema.GroupVersionKind
	var namespace string
	switch obj.GetObjectKind().GroupVersionKind().GroupKind() {
	case crdKind():
		crd, err := c.get(ctx, obj)
		if err != nil || crd == nil {
			return "", err
		}
		kinds = instances(crd)
	case schema.GroupKind{Kind: "Namespace"}:
		lists, err := c.resources(ctx)
		if err != nil {
			return "", err
		}
		kinds, namespace = inhabitants(lists), obj.GetName()
	}
	found := make([][]string, len(kinds))
	err := each(ctx, len(kinds), func(ctx context.Context, i int) (err error) {
		found[i], err = c.foreigners(ctx, kinds[i], namespace)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("looking for what others made that needs %s: %w", idOf(obj), err)
	}
	foreign := slices.Concat(found...)
	switch len(foreign) {
	case 0:
		return "", nil
	case 1:
		return foreign[0] + " is not the lab's and needs it", nil
	default:
		return fmt.Sprintf("%s and %d more are not the lab's and need it", foreign[0], len(foreign)-1), nil
	}
}

// foreigners names the objects of a kind that are not the lab's.
func (c *Client) foreigners(ctx context.Context, gvk schema.GroupVersionKind, namespace string) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := c.api.List(ctx, list, client.InNamespace(namespace))
	switch {
	case err == nil:
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err), kindUnknown(err):
		return nil, nil
	case apierrors.IsForbidden(err):
		// What cannot be seen may be there.
		return []string{fmt.Sprintf("what there is of kind %s, which this user may not list,", gvk.Kind)}, nil
	default:
		return nil, fmt.Errorf("listing %s: %w", gvk.Kind, err)
	}
	var foreign []string
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(gvk)
		is, err := c.foreign(ctx, &list.Items[i])
		if err != nil {
			return nil, err
		}
		if is {
			foreign = append(foreign, idOf(&list.Items[i]).String())
		}
	}
	return foreign, nil
}

// instances gives the kind that a CRD defines, in its stored version where that is
// served, and otherwise in one that is: every object can be read in each of them.
func instances(crd *unstructured.Unstructured) []schema.GroupVersionKind {
	group, _, _ := unstructured.NestedString(crd.Object, "spec", "group")
	kind, _, _ := unstructured.NestedString(crd.Object, "spec", "names", "kind")
	versions, _, _ := unstructured.NestedSlice(crd.Object, "spec", "versions")
	var found []schema.GroupVersionKind
	for _, v := range versions {
		v, _ := v.(map[string]any)
		name, _ := v["name"].(string)
		if v["served"] != true {
			continue
		}
		gvk := schema.GroupVersionKind{Group: group, Version: name, Kind: kind}
		if v["storage"] == true {
			return []schema.GroupVersionKind{gvk}
		}
		found = []schema.GroupVersionKind{gvk}
	}
	return found
}

// inhabitants are the kinds that make a namespace someone's: all that live in
// namespaces, but for what only the cluster itself makes.
func inhabitants(lists []*metav1.APIResourceList) []schema.GroupVersionKind {
	var namespaced []*metav1.APIResourceList
	for _, list := range lists {
		kept := &metav1.APIResourceList{GroupVersion: list.GroupVersion}
		for _, r := range list.APIResources {
			if r.Namespaced {
				kept.APIResources = append(kept.APIResources, r)
			}
		}
		namespaced = append(namespaced, kept)
	}
	return deletable(namespaced)
}
