package apply

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ownersDeep bounds the chain of owners that is followed: a CronJob's pod has three.
const ownersDeep = 10

// foreign tells whether an object is neither the lab's nor made for what the lab
// installed. Of an object with an owner its owner decides, and of that one its own:
// a pod of somebody's Deployment is somebody's.
func (c *Client) foreign(ctx context.Context, obj *metav1.PartialObjectMetadata) (bool, error) {
	for range ownersDeep {
		if obj.GetDeletionTimestamp() != nil {
			return false, nil
		}
		if len(obj.GetOwnerReferences()) == 0 {
			ours := obj.GetLabels()[LabelName] == c.lab && !adopted(obj)
			return !ours && !byProduct(obj) && !inEveryNamespace(obj), nil
		}
		owner, known, err := c.owner(ctx, obj)
		if err != nil || !known {
			return true, err
		}
		if owner == nil {
			return false, nil // its owner is gone, and it is about to be collected
		}
		obj = owner
	}
	return true, nil
}

// owner reads an object's controller or, where it has none, its first owner; nil means
// that it does not exist any more. known is false where that cannot be told.
func (c *Client) owner(ctx context.Context, obj *metav1.PartialObjectMetadata) (owner *metav1.PartialObjectMetadata, known bool, err error) {
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

// byProduct tells what the installed controllers make by themselves and without an
// owner. The kinds are told, and not the names of field managers alone: a program is
// its file's name there, and many a controller is called just that.
func byProduct(obj client.Object) bool {
	switch gk := obj.GetObjectKind().GroupVersionKind().GroupKind(); gk {
	case schema.GroupKind{Group: gatewayGroup, Kind: "GatewayClass"}:
		return writtenByIstiod(obj)
	case schema.GroupKind{Group: "metallb.io", Kind: "ServiceL2Status"},
		schema.GroupKind{Group: "metallb.io", Kind: "ServiceBGPStatus"},
		schema.GroupKind{Group: "metallb.io", Kind: "ConfigurationState"}:
		return true // only MetalLB itself writes these
	case schema.GroupKind{Kind: "Secret"}:
		// istiod's self-signed authority (istio, security/pkg/pki/ca/ca.go).
		return writtenByIstiod(obj) && slices.Contains([]string{"istio-ca-secret", "cacerts"}, obj.GetName())
	case schema.GroupKind{Kind: "ConfigMap"}:
		// Its elections (istio, pilot/pkg/leaderelection/leaderelection.go).
		return writtenByIstiod(obj) && slices.Contains([]string{
			"istio-leader", "istio-namespace-controller-election", "istio-clustertrustbundle-controller-election",
			"istio-serviceexport-controller-election", "istio-gateway-status-leader", "istio-status-leader",
			"istio-analyze-leader", "istio-gateway-inferencepool", "istio-node-untaint", "istio-ip-autoallocate",
		}, obj.GetName())
	default:
		return false
	}
}

// inEveryNamespace tells what Kubernetes and istiod put into each namespace.
func inEveryNamespace(obj client.Object) bool {
	switch obj.GetObjectKind().GroupVersionKind().GroupKind() {
	case schema.GroupKind{Kind: "ServiceAccount"}:
		return obj.GetName() == "default"
	case schema.GroupKind{Kind: "ConfigMap"}:
		return obj.GetName() == "kube-root-ca.crt" || isRootCertificate(obj)
	default:
		return false
	}
}

// isRootCertificate tells the ConfigMaps with which istiod tells every namespace whom
// to trust (istio, pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go).
func isRootCertificate(obj client.Object) bool {
	return obj.GetLabels()["istio.io/config"] == "true" &&
		slices.Contains([]string{"istio-ca-root-cert", "istio-ca-crl"}, obj.GetName())
}

// writtenByIstiod tells whether istiod wrote more of an object than its status.
func writtenByIstiod(obj client.Object) bool {
	return slices.ContainsFunc(obj.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Subresource == "" && slices.Contains([]string{"pilot-discovery", "istio.io/gateway-controller"}, f.Manager)
	})
}
