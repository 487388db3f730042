package apply

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// unjudged is what a step says of itself where there is no cluster to ask.
const unjudged = "there is no cluster yet, so its API server has not judged these objects"

// foresee lists what a Set brings into a cluster that does not exist yet: every object, as it would be written.
func foresee(set Set) ([]engine.Change, error) {
	objs, err := (&Client{mapper: unasked{}}).objects(set)
	if err != nil {
		return nil, err
	}
	return absent(objs, make([]*unstructured.Unstructured, len(objs))), nil
}

// foreseeOverlay does the same for fields on an object that something else makes.
func foreseeOverlay(o Overlay) ([]engine.Change, error) {
	w, err := (&Client{mapper: unasked{}}).overlay(o)
	if err != nil {
		return nil, err
	}
	return []engine.Change{{Object: idOf(w.obj).String(), Action: engine.Update, Detail: "overlay " + o.Name}}, nil
}

// reach connects for a look. Without a cluster there is no client, and no error either: nothing of the step holds then.
func reach(ctx context.Context, connect func(context.Context) (*Client, error)) (*Client, error) {
	c, err := connect(ctx)
	if problem.Is(err, problem.ClusterNone) {
		return nil, nil
	}
	return c, err
}

// unasked stands in for the discovery of a cluster that does not exist: it knows which of Kubernetes' own kinds do not
// live in namespaces, and nothing of others.
type unasked struct{ meta.RESTMapper }

func (unasked) RESTMapping(kind schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
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
