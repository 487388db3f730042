package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// id names an object regardless of the version in which it is written.
type id struct {
	schema.GroupKind
	namespace, name string
}

func idOf(obj client.Object) id {
	return id{obj.GetObjectKind().GroupVersionKind().GroupKind(), obj.GetNamespace(), obj.GetName()}
}

// String is how people and Change name an object: Deployment default/appa. The group
// is left out, as it tells a learner little, except where Istio's Gateway and the
// Gateway API's would be the same words.
func (i id) String() string {
	kind := i.Kind
	if i.Kind == "Gateway" && i.Group != gatewayGroup {
		kind += "." + i.Group
	}
	if i.namespace == "" {
		return kind + " " + i.name
	}
	return kind + " " + i.namespace + "/" + i.name
}

const (
	gatewayGroup   = "gateway.networking.k8s.io"
	admissionGroup = "admissionregistration.k8s.io"
)

// crdKind is the kind of kinds.
func crdKind() schema.GroupKind {
	return schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
}

// The stages of an apply. Objects of one stage do not need each other; each stage
// needs those before it. A deletion goes through them backwards.
const (
	stageNamespace = iota
	stageCRD
	stageConfig
	stageRole
	stageBinding
	stageService
	stageWorkload
	stageAdmission
	stageCustom // last: their CRD must be served, and their webhook should answer
	stages
)

func stageOf(gvk schema.GroupVersionKind) int {
	if gvk.GroupKind() == crdKind() {
		return stageCRD
	}
	if !scheme.Scheme.Recognizes(gvk) {
		return stageCustom
	}
	switch gvk.Kind {
	case "Namespace":
		return stageNamespace
	case "Role", "ClusterRole":
		return stageRole
	case "RoleBinding", "ClusterRoleBinding":
		return stageBinding
	case "Service", "NetworkPolicy", "PodDisruptionBudget", "Ingress":
		return stageService
	case "Pod", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job", "CronJob", "HorizontalPodAutoscaler":
		return stageWorkload
	}
	if gvk.Group == admissionGroup || gvk.Group == "apiregistration.k8s.io" {
		return stageAdmission
	}
	return stageConfig
}

// objects gives copies of the Set's objects as they are to be applied: labelled, in
// their namespace, without what belongs to others, sorted by stage and name.
func (c *Client) objects(set Set) ([]*unstructured.Unstructured, error) {
	if why := validation.IsValidLabelValue(set.Name); set.Name == "" || len(why) > 0 {
		return nil, fmt.Errorf("part name %q cannot be a label's value: %s", set.Name, strings.Join(why, "; "))
	}
	namespace := cmp.Or(set.Namespace, "default")
	seen := make(map[id]bool, len(set.Objects))
	objs := make([]*unstructured.Unstructured, 0, len(set.Objects))
	for i, original := range set.Objects {
		obj, err := duplicate(original)
		if err != nil {
			return nil, fmt.Errorf("part %s: %w", set.Name, err)
		}
		if obj.GetName() == "" || obj.GetKind() == "" || obj.GetAPIVersion() == "" {
			return nil, fmt.Errorf("object %d of part %s lacks an apiVersion, a kind or a name", i+1, set.Name)
		}
		inNamespace, err := c.namespaced(obj.GroupVersionKind(), set)
		if err != nil {
			return nil, fmt.Errorf("looking up kind %s: %w", obj.GetKind(), err)
		}
		switch {
		case !inNamespace:
			obj.SetNamespace("")
		case obj.GetNamespace() == "":
			obj.SetNamespace(namespace)
		}
		c.label(obj, set.Name)
		disown(obj)
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

func (c *Client) label(obj *unstructured.Unstructured, part string) {
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelManagedBy], labels[LabelName], labels[LabelPart] = ManagedBy, c.lab, part
	obj.SetLabels(labels)
}

// disown removes from an object what its controllers write, so that server-side apply
// leaves those fields to them: the certificate authority of webhooks, and what only
// the server sets. An annotation of AnnotationAdopted is the cluster's, not a caller's.
func disown(obj *unstructured.Unstructured) {
	delete(obj.Object, "status")
	for _, field := range []string{"creationTimestamp", "managedFields", "resourceVersion", "uid", "generation"} {
		unstructured.RemoveNestedField(obj.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(obj.Object, "metadata", "annotations", AnnotationAdopted)
	switch {
	case obj.GroupVersionKind().GroupKind() == crdKind():
		unstructured.RemoveNestedField(obj.Object, "spec", "conversion", "webhook", "clientConfig", "caBundle")
	case obj.GroupVersionKind().Group == admissionGroup:
		hooks, _, _ := unstructured.NestedFieldNoCopy(obj.Object, "webhooks")
		list, _ := hooks.([]any)
		for _, h := range list {
			if hook, ok := h.(map[string]any); ok {
				unstructured.RemoveNestedField(hook, "clientConfig", "caBundle")
			}
		}
	}
}

// namespaced tells whether a kind lives in namespaces. Of a kind that the cluster does
// not know, the Set's own CRDs are asked; failing these, it is taken to.
func (c *Client) namespaced(gvk schema.GroupVersionKind, set Set) (bool, error) {
	mapping, err := c.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err == nil {
		return mapping.Scope.Name() == meta.RESTScopeNameNamespace, nil
	}
	if !kindUnknown(err) {
		return false, err
	}
	for _, obj := range set.Objects {
		if obj.GroupVersionKind().GroupKind() != crdKind() {
			continue
		}
		group, _, _ := unstructured.NestedString(obj.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(obj.Object, "spec", "names", "kind")
		if group == gvk.Group && kind == gvk.Kind {
			scope, _, _ := unstructured.NestedString(obj.Object, "spec", "scope")
			return scope == "Namespaced", nil
		}
	}
	return true, nil
}

// get reads the live object of obj's identity, or nil where there is none, also where
// the cluster does not know its kind (any more).
func (c *Client) get(ctx context.Context, obj client.Object) (*unstructured.Unstructured, error) {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	err := c.api.Get(ctx, client.ObjectKeyFromObject(obj), live)
	switch {
	case err == nil:
		return live, nil
	case apierrors.IsNotFound(err), kindUnknown(err):
		return nil, nil
	default:
		return nil, fmt.Errorf("reading %s: %w", idOf(obj), err)
	}
}

// kindUnknown tells whether the cluster does not serve the kind. The mapper says so
// for a kind it never saw; a kind whose CRD was deleted after it was looked up gives
// the server's bare 404 instead, which names no object.
func kindUnknown(err error) bool {
	if meta.IsNoMatchError(err) {
		return true
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsNotFound(err) &&
		strings.Contains(status.Status().Message, "could not find the requested resource")
}
