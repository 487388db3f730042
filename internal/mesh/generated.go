package mesh

import (
	"context"
	"fmt"
	"slices"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/apply"
)

// Generated says whether istiod made an object by itself, without an owner. Kind and name decide, and not the field
// manager alone: a program's manager is the name of its file, and another program may have that name.
func Generated(obj client.Object) bool {
	switch obj.GetObjectKind().GroupVersionKind().GroupKind() {
	case schema.GroupKind{Group: gatewayv1.GroupName, Kind: "GatewayClass"}:
		return writtenByIstiod(obj)
	case schema.GroupKind{Kind: "Secret"}:
		// The self-signed certificate authority (istio, security/pkg/pki/ca/ca.go).
		return writtenByIstiod(obj) && slices.Contains([]string{"istio-ca-secret", "cacerts"}, obj.GetName())
	case schema.GroupKind{Kind: "ConfigMap"}:
		// The leader elections (istio, pilot/pkg/leaderelection/leaderelection.go).
		return isRootCertificate(obj) || writtenByIstiod(obj) && slices.Contains([]string{
			"istio-leader", "istio-namespace-controller-election", "istio-clustertrustbundle-controller-election",
			"istio-serviceexport-controller-election", "istio-gateway-status-leader", "istio-status-leader",
			"istio-analyze-leader", "istio-gateway-inferencepool", "istio-node-untaint", "istio-ip-autoallocate",
		}, obj.GetName())
	default:
		return false
	}
}

// isRootCertificate says whether a ConfigMap holds the mesh's root certificates, which istiod writes into every
// namespace (istio, pilot/pkg/serviceregistry/kube/controller/namespacecontroller.go).
func isRootCertificate(obj client.Object) bool {
	return obj.GetLabels()["istio.io/config"] == "true" &&
		slices.Contains([]string{"istio-ca-root-cert", "istio-ca-crl"}, obj.GetName())
}

// writtenByIstiod says whether istiod wrote more of an object than its status.
func writtenByIstiod(obj client.Object) bool {
	managers := []string{"pilot-discovery", "istio.io/gateway-controller"}
	return slices.ContainsFunc(obj.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool {
		return f.Subresource == "" && slices.Contains(managers, f.Manager)
	})
}

// DeleteGenerated deletes what istiod has made by itself since a moment and does not delete when it ends: root
// certificates in every namespace of the cluster and, where its own namespace stays, its certificate authority and its
// leader elections. Where another istiod is in the cluster they may belong to that one, and stay.
func DeleteGenerated(ctx context.Context, c *apply.Client, since time.Time) error {
	other, err := anotherIstiod(ctx, c.Client())
	if err != nil {
		return err
	}
	keep := ""
	if other != "" {
		keep = other + " may need it"
	}
	return c.DeleteGenerated(ctx, []schema.GroupVersionKind{
		{Version: "v1", Kind: "ConfigMap"},
		{Version: "v1", Kind: "Secret"},
		{Group: "coordination.k8s.io", Version: "v1", Kind: "Lease"},
		{Group: gatewayv1.GroupName, Version: "v1", Kind: "GatewayClass"},
	}, func(obj client.Object) bool {
		isLease := obj.GetObjectKind().GroupVersionKind().Kind == "Lease"
		return writtenByIstiod(obj) && (Generated(obj) || isLease) && !obj.GetCreationTimestamp().Time.Before(since)
	}, keep)
}

// anotherIstiod names what is left of an Istio control plane, or is empty. An external control plane has no Deployment
// here, but the webhook that injects its sidecars.
func anotherIstiod(ctx context.Context, api client.Reader) (string, error) {
	for _, trace := range []struct {
		version   schema.GroupVersion
		kind, app string
	}{
		{appsv1.SchemeGroupVersion, "Deployment", "istiod"},
		{corev1.SchemeGroupVersion, "Pod", "istiod"},
		{admissionv1.SchemeGroupVersion, "MutatingWebhookConfiguration", "sidecar-injector"},
	} {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(trace.version.WithKind(trace.kind + "List"))
		if err := api.List(ctx, list, client.MatchingLabels{"app": trace.app}); err != nil {
			return "", fmt.Errorf("looking for another istiod: %w", err)
		}
		for _, item := range list.Items {
			if item.GetDeletionTimestamp() == nil {
				return trace.kind + " " + path(item.Namespace, item.Name), nil
			}
		}
	}
	return "", nil
}

func path(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
