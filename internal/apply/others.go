package apply

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// neededByOthers says why an object of the lab cannot be deleted: with a CRD all objects of its kind are deleted, and
// with a namespace everything in it, and the lab deletes nothing that others made. It is empty where the object can be
// deleted.
func (c *Client) neededByOthers(ctx context.Context, obj client.Object) (string, error) {
	var kinds []schema.GroupVersionKind
	var namespace string
	switch obj.GetObjectKind().GroupVersionKind().GroupKind() {
	case crdKind():
		crd, err := c.get(ctx, obj)
		if err != nil || crd == nil {
			return "", err
		}
		kinds = definedKind(crd)
	case schema.GroupKind{Kind: "Namespace"}:
		lists, err := c.resources(ctx)
		if err != nil {
			return "", err
		}
		kinds, namespace = namespacedKinds(lists), obj.GetName()
	}
	found := make([][]string, len(kinds))
	err := inParallel(ctx, len(kinds), func(ctx context.Context, i int) (err error) {
		found[i], err = c.listOthers(ctx, kinds[i], namespace)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("looking for objects of others that need %s: %w", idOf(obj), err)
	}
	others := slices.Concat(found...)
	switch len(others) {
	case 0:
		return "", nil
	case 1:
		return others[0] + " is not the lab's and needs it", nil
	default:
		return fmt.Sprintf("%s and %d more are not the lab's and need it", others[0], len(others)-1), nil
	}
}

// listOthers names the objects of a kind that others made.
func (c *Client) listOthers(ctx context.Context, gvk schema.GroupVersionKind, namespace string) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := c.api.List(ctx, list, client.InNamespace(namespace))
	switch {
	case err == nil:
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err), kindUnknown(err):
		return nil, nil
	case apierrors.IsForbidden(err):
		// There may be some that this user cannot see.
		return []string{fmt.Sprintf("what exists of kind %s, which this user may not list,", gvk.Kind)}, nil
	default:
		return nil, fmt.Errorf("listing %s: %w", gvk.Kind, err)
	}
	var others []string
	for i := range list.Items {
		list.Items[i].SetGroupVersionKind(gvk)
		byOthers, err := c.madeByOthers(ctx, &list.Items[i])
		if err != nil {
			return nil, err
		}
		if byOthers {
			others = append(others, idOf(&list.Items[i]).String())
		}
	}
	return others, nil
}

// definedKind returns the kind that a CRD defines, in its storage version where that is served, and otherwise in a
// version that is: every object can be read in each of them. It is empty where no version is served.
func definedKind(crd *unstructured.Unstructured) []schema.GroupVersionKind {
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

// namespacedKinds returns the kinds whose objects are in namespaces and can be deleted.
func namespacedKinds(lists []*metav1.APIResourceList) []schema.GroupVersionKind {
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

// maxOwners limits the chain of owners that is followed: a CronJob's pod has two owners.
const maxOwners = 10

// madeByOthers says whether an object is neither the lab's nor generated for what the lab installed. The owner decides
// for an object that has one: a pod of another user's Deployment is another user's.
func (c *Client) madeByOthers(ctx context.Context, obj *metav1.PartialObjectMetadata) (bool, error) {
	for range maxOwners {
		if obj.GetDeletionTimestamp() != nil {
			return false, nil
		}
		if len(obj.GetOwnerReferences()) == 0 {
			ours := obj.GetLabels()[LabelName] == c.lab && !adopted(obj)
			return !ours && !inEveryNamespace(obj) && !c.generated(obj), nil
		}
		owner, known, err := c.owner(ctx, obj)
		if err != nil || !known {
			return true, err
		}
		if owner == nil {
			return false, nil // its owner is deleted, and the garbage collector deletes it next
		}
		obj = owner
	}
	return true, nil
}

// owner reads an object's controller or, where it has none, its first owner; nil means that it does not exist any more.
// known is false where the owner cannot be read.
func (c *Client) owner(
	ctx context.Context, obj *metav1.PartialObjectMetadata,
) (owner *metav1.PartialObjectMetadata, known bool, err error) {
	ref := obj.GetOwnerReferences()[0]
	if controller := metav1.GetControllerOf(obj); controller != nil {
		ref = *controller
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	switch {
	case err == nil:
	case kindUnknown(err):
		return nil, false, nil
	default:
		return nil, false, fmt.Errorf("looking up kind %s: %w", ref.Kind, err)
	}
	key := client.ObjectKey{Name: ref.Name}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		key.Namespace = obj.GetNamespace()
	}
	found := &metav1.PartialObjectMetadata{}
	found.SetGroupVersionKind(gvk)
	err = c.api.Get(ctx, key, found)
	switch {
	case err == nil && found.GetUID() == ref.UID:
		found.SetGroupVersionKind(gvk)
		return found, true, nil
	case err == nil, apierrors.IsNotFound(err) && !kindUnknown(err):
		return nil, true, nil
	case kindUnknown(err), apierrors.IsForbidden(err):
		return nil, false, nil
	default:
		return nil, false, fmt.Errorf("reading %s %s, the owner of %s: %w", ref.Kind, ref.Name, idOf(obj), err)
	}
}

func (c *Client) generated(obj client.Object) bool {
	return c.options.Generated != nil && c.options.Generated(obj)
}

// inEveryNamespace says whether Kubernetes makes an object in each namespace.
func inEveryNamespace(obj client.Object) bool {
	switch obj.GetObjectKind().GroupVersionKind().GroupKind() {
	case schema.GroupKind{Kind: "ServiceAccount"}:
		return obj.GetName() == "default"
	case schema.GroupKind{Kind: "ConfigMap"}:
		return obj.GetName() == "kube-root-ca.crt"
	default:
		return false
	}
}
