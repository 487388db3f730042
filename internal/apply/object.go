package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type objectList = []*unstructured.Unstructured

// id identifies an object whatever the version in which it is written.
type id struct {
	schema.GroupKind
	namespace, name string
}

func idOf(obj client.Object) id {
	return id{obj.GetObjectKind().GroupVersionKind().GroupKind(), obj.GetNamespace(), obj.GetName()}
}

// String is how messages and changes name an object: Deployment default/appa. The group is left out, except that of a
// Gateway which is not the Gateway API's: other projects have a kind of that name too.
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

// crdKind is the kind that defines kinds.
func crdKind() schema.GroupKind {
	return schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}
}

// The stages of an apply. Objects of one stage do not need each other; each stage needs those before it. Deletion uses
// the reverse order.
const (
	stageNamespace = iota
	stageCRD
	stageConfig
	stageRole
	stageBinding
	stageService
	stageWorkload
	stageAdmission
	stageCustom // last: their CRD must be served, and their webhook must answer
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

func (c *Client) label(obj *unstructured.Unstructured, part string) {
	labels := obj.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelManagedBy], labels[LabelName], labels[LabelPart] = ManagedBy, c.lab, part
	obj.SetLabels(labels)
}

// dropControllerFields removes from an object what its controllers write, so that server-side apply leaves those fields
// to them: the certificate authority of webhooks, and what only the server sets. AnnotationAdopted is set by this
// package, not by a caller.
func dropControllerFields(obj *unstructured.Unstructured) {
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

// namespaced says whether objects of a kind are in namespaces. For a kind that the cluster does not serve, a CRD in the
// Set says it; without one the answer is yes.
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

// get reads the live object with obj's identity. It is nil where there is none, or where the cluster does not serve its
// kind.
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

// listFrom is from how many objects of one kind in one namespace on they are read with a listing instead of one by one.
const listFrom = 50

// listPage is how many objects a listing asks for at a time.
const listPage = 500

// fetch reads objects. The result has them in the same order, with nil for those that do not exist.
func (c *Client) fetch(ctx context.Context, objs objectList) (objectList, error) {
	of := map[scope][]int{}
	for i, obj := range objs {
		s := scope{obj.GroupVersionKind(), obj.GetNamespace()}
		of[s] = append(of[s], i)
	}
	live := make(objectList, len(objs))
	var single []int
	for s, indexes := range of {
		var listed map[string]*unstructured.Unstructured
		if len(indexes) >= listFrom {
			listed = c.list(ctx, s)
		}
		if listed == nil {
			single = append(single, indexes...)
			continue
		}
		for _, i := range indexes {
			live[i] = listed[objs[i].GetName()]
		}
	}
	slices.Sort(single)
	err := inParallel(ctx, len(single), func(ctx context.Context, i int) (err error) {
		live[single[i]], err = c.get(ctx, objs[single[i]])
		return err
	})
	return live, err
}

// list reads the objects of a kind in a namespace, by their names. It gives nil where that fails: a user may have the
// right to read an object and not to list all, and what else is wrong shows when the objects are read one by one.
func (c *Client) list(ctx context.Context, s scope) map[string]*unstructured.Unstructured {
	found := map[string]*unstructured.Unstructured{}
	page := &unstructured.UnstructuredList{}
	for {
		next := page.GetContinue()
		page = &unstructured.UnstructuredList{}
		page.SetGroupVersionKind(s.gvk.GroupVersion().WithKind(s.gvk.Kind + "List"))
		err := c.api.List(ctx, page, client.InNamespace(s.namespace), client.Limit(listPage), client.Continue(next))
		if err != nil {
			return nil
		}
		for i := range page.Items {
			found[page.Items[i].GetName()] = &page.Items[i]
		}
		if page.GetContinue() == "" {
			return found
		}
	}
}

// kindUnknown says whether err means that the cluster does not serve a kind. The mapper says so for a kind that it has
// never seen; where the CRD was deleted after the mapper had looked it up, the server answers 404 without naming an
// object.
func kindUnknown(err error) bool {
	if meta.IsNoMatchError(err) {
		return true
	}
	var status apierrors.APIStatus
	return errors.As(err, &status) && apierrors.IsNotFound(err) &&
		strings.Contains(status.Status().Message, "could not find the requested resource")
}

// deepCopy copies an object, with every value in the form that unstructured content must have. Objects that are written
// as Go literals hold ints and []string, at which Kubernetes' own DeepCopy panics (runtime.DeepCopyJSONValue).
func deepCopy(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	content, err := jsonValue(obj.Object)
	if err != nil {
		return nil, fmt.Errorf("object %s %s: %w", obj.GetKind(), obj.GetName(), err)
	}
	fields, _ := content.(map[string]any)
	return &unstructured.Unstructured{Object: fields}, nil
}

func jsonValue(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case []string:
		return jsonList(v)
	case []any:
		return jsonList(v)
	case []map[string]any:
		return jsonList(v)
	case map[string]string:
		return jsonMap(v)
	case map[string]any:
		return jsonMap(v)
	default:
		return nil, fmt.Errorf("a value of type %T is not JSON", v)
	}
}

func jsonList[T any](list []T) (any, error) {
	out := make([]any, len(list))
	for i, e := range list {
		var err error
		if out[i], err = jsonValue(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func jsonMap[T any](m map[string]T) (any, error) {
	out := make(map[string]any, len(m))
	for k, e := range m {
		var err error
		if out[k], err = jsonValue(e); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
	}
	return out, nil
}

// noCluster replaces the discovery of a cluster that does not exist: it knows which of Kubernetes' own kinds are not in
// namespaces, and no other kind.
type noCluster struct{ meta.RESTMapper }

func (noCluster) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	switch kind {
	case
		schema.GroupKind{Kind: "Namespace"},
		schema.GroupKind{Kind: "PersistentVolume"},
		schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole"},
		schema.GroupKind{Group: "rbac.authorization.k8s.io", Kind: "ClusterRoleBinding"},
		schema.GroupKind{Group: admissionGroup, Kind: "ValidatingWebhookConfiguration"},
		schema.GroupKind{Group: admissionGroup, Kind: "MutatingWebhookConfiguration"},
		schema.GroupKind{Group: admissionGroup, Kind: "ValidatingAdmissionPolicy"},
		schema.GroupKind{Group: admissionGroup, Kind: "ValidatingAdmissionPolicyBinding"},
		schema.GroupKind{Group: "apiregistration.k8s.io", Kind: "APIService"},
		schema.GroupKind{Group: "scheduling.k8s.io", Kind: "PriorityClass"},
		schema.GroupKind{Group: "storage.k8s.io", Kind: "StorageClass"},
		schema.GroupKind{Group: "networking.k8s.io", Kind: "IngressClass"},
		schema.GroupKind{Group: gatewayGroup, Kind: "GatewayClass"},
		crdKind():
		return &meta.RESTMapping{Scope: meta.RESTScopeRoot}, nil
	}
	return nil, &meta.NoKindMatchError{GroupKind: kind, SearchedVersions: versions}
}
