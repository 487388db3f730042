package lab

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
)

var gatewayKind = schema.GroupVersionKind{Group: gatewayAPIGroup, Version: "v1", Kind: "Gateway"}

// get reads an object of the applications' namespace; nil means that it, or its whole kind, is not there.
func (l *Lab) get(ctx context.Context, client *apply.Client, kind schema.GroupVersionKind, name string) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	err := client.Client().Get(ctx, types.NamespacedName{Namespace: l.Settings.Namespace, Name: name}, object)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s: %w", kind.Kind, name, err)
	}
	return object, nil
}

// firstAddress is the first address in a Gateway's status, or "".
func firstAddress(gateway *unstructured.Unstructured) string {
	addresses, _, _ := unstructured.NestedSlice(gateway.Object, "status", "addresses")
	if len(addresses) == 0 {
		return ""
	}
	first, _ := addresses[0].(map[string]any)
	value, _, _ := unstructured.NestedString(first, "value")
	return value
}

// needPackets refuses a target that makes no sense where nothing carries packets.
func (l *Lab) needPackets(target string) error {
	if l.carriesPackets() {
		return nil
	}
	return problem.New(problem.HostUnsupported, nil, "%s needs pods that exchange packets; the embedded control plane has none", target).
		With("Use a kind cluster (SM_PROVIDER=kind) or one of your own (INSTALL_KIND=n).")
}
