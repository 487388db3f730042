package session

import (
	"context"
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/lb"
	"ambientlab/internal/mesh"
)

// connection is made when a step first needs it: before the first step there may be no cluster to connect to.
type connection struct {
	mu     sync.Mutex
	client *apply.Client
}

// Connect gives the client of the lab's cluster, and connects at the first call that succeeds.
func (s *Session) Connect(ctx context.Context) (*apply.Client, error) {
	if s.absent != nil {
		return nil, s.absent
	}
	s.connection.mu.Lock()
	defer s.connection.mu.Unlock()
	if s.connection.client != nil {
		return s.connection.client, nil
	}
	config, err := s.provider.RESTConfig(ctx)
	if err != nil {
		return nil, err
	}
	connected, err := Client(config, s.Settings.Cluster)
	if err != nil {
		return nil, err
	}
	s.connection.client = connected
	return connected, nil
}

// Client makes the client of a lab's cluster. It knows Istio's kinds, and what istiod and MetalLB generate.
func Client(config *rest.Config, lab string) (*apply.Client, error) {
	return apply.New(config, lab, apply.Options{
		Kinds:     mesh.Kinds(),
		Causes:    mesh.Causes(),
		Generated: func(obj client.Object) bool { return mesh.Generated(obj) || lb.Generated(obj) },
	})
}

// Mesh asks the proxies of the lab's cluster or, where pods run none, istiod in their place.
func (s *Session) Mesh(ctx context.Context) (*mesh.Mesh, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var options []mesh.Option
	if istiod, ok := s.provider.(cluster.ConfigSource); ok && !s.Info.Packets {
		options = append(options, mesh.WithIstiod(istiod.XDSAddress))
	}
	return mesh.New(client.Config(), options...)
}

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
