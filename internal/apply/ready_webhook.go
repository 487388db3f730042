package apply

import (
	"context"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func isWebhookConfiguration(gk schema.GroupKind) bool {
	return gk.Group == admissionGroup && (gk.Kind == "ValidatingWebhookConfiguration" || gk.Kind == "MutatingWebhookConfiguration")
}

// webhookBackend wants the server of every webhook to have an endpoint, and to have
// written its certificate authority into the configuration.
//
// A webhook whose Service is of another part is not judged: Istio's base chart brings
// the webhook of an istiod that comes after it, and waiting for that would be waiting
// for ever.
func (c *Client) webhookBackend(ctx context.Context, live *unstructured.Unstructured, set []*unstructured.Unstructured) (state, error) {
	hooks, _, _ := unstructured.NestedSlice(live.Object, "webhooks")
	for _, h := range hooks {
		hook, _ := h.(map[string]any)
		name, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "name")
		namespace, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "namespace")
		if name == "" || !holdsService(set, namespace, name) {
			continue
		}
		if ca, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle"); ca == "" {
			return waiting("webhook %v: its server has not written its certificate authority yet", hook["name"]), nil
		}
		ready, err := c.hasReadyPod(ctx, namespace, name)
		if err != nil {
			return state{}, err
		}
		if !ready {
			return waiting("webhook %v: no ready pod stands behind Service %s/%s", hook["name"], namespace, name), nil
		}
	}
	return state{done: true}, nil
}

func holdsService(set []*unstructured.Unstructured, namespace, name string) bool {
	for _, obj := range set {
		if obj.GetKind() == "Service" && obj.GetNamespace() == namespace && obj.GetName() == name {
			return true
		}
	}
	return false
}

// hasReadyPod tells whether a ready pod stands behind a Service.
func (c *Client) hasReadyPod(ctx context.Context, namespace, service string) (bool, error) {
	slices := &discoveryv1.EndpointSliceList{}
	err := c.api.List(ctx, slices, client.InNamespace(namespace), client.MatchingLabels{discoveryv1.LabelServiceName: service})
	if err != nil {
		return false, fmt.Errorf("listing the endpoints of Service %s/%s: %w", namespace, service, err)
	}
	return hasEndpoint(slices.Items), nil
}

func hasEndpoint(items []discoveryv1.EndpointSlice) bool {
	for _, slice := range items {
		for _, e := range slice.Endpoints {
			// The API says that an unset condition means ready.
			if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				return true
			}
		}
	}
	return false
}
