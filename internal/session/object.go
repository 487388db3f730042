package session

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// GatewayKind is the kind of gateways and waypoints.
var GatewayKind = schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "Gateway"}

// Gateway reads a Gateway of the applications' namespace; nil means that it, or its whole kind, does not exist.
func (s *Session) Gateway(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(GatewayKind)
	err = client.Client().Get(ctx, types.NamespacedName{Namespace: s.Config.Namespace, Name: name}, object)
	if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Gateway %s: %w", name, err)
	}
	return object, nil
}
