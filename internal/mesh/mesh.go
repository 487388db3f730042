package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Target is what the lessons work on: one Service, its waypoint and the gateway before it, all in the Service's
// namespace.
type Target struct {
	Service Service
	// Waypoint and Gateway are the names of the Gateway objects. Gateway may be empty where there is none.
	Waypoint, Gateway string
}

// Mesh asks an Istio whether configuration has arrived.
type Mesh struct {
	kube    kubernetes.Interface
	objects dynamic.Interface
	// proxy gives the proxy in a pod; it is closed after use.
	proxy func(namespace, pod string) Proxy
	// nodeProxy gives the ztunnel in a pod; it is closed after use. nil means that pods run none.
	nodeProxy func(namespace, pod string) nodeProxy
}

// Option changes how a Mesh works.
type Option func(*Mesh)

// New makes a Mesh for a cluster.
func New(config *rest.Config, options ...Option) (*Mesh, error) {
	// A wait looks ten times a second; client-go's own limit of five requests a second would delay that silently.
	config = rest.CopyConfig(config)
	config.QPS = -1
	forwarder, err := NewForwarder(config)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for Istio's objects: %w", err)
	}
	m := &Mesh{
		kube: forwarder.kube, objects: objects,
		proxy:     func(namespace, pod string) Proxy { return forwarder.Admin(namespace, pod) },
		nodeProxy: func(namespace, pod string) nodeProxy { return ztunnel{forwarder.Admin(namespace, pod)} },
	}
	for _, option := range options {
		option(m)
	}
	return m, nil
}

// GatewayLabel names the Gateway on everything that istiod makes for it.
const GatewayLabel = "gateway.networking.k8s.io/gateway-name"

// Pods lists the names of the pods of a Gateway, waypoint or ingress, that run and are not being deleted, in order.
func (m *Mesh) Pods(ctx context.Context, namespace, gateway string) ([]string, error) {
	pods, err := m.podsOf(ctx, namespace, gateway)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pod := range pods {
		if pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *Mesh) podsOf(ctx context.Context, namespace, gateway string) ([]corev1.Pod, error) {
	list, err := m.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{
		LabelSelector: GatewayLabel + "=" + gateway,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of Gateway %s/%s: %w", namespace, gateway, err)
	}
	return list.Items, nil
}

// Dump gives the configuration that a pod's proxy holds.
func (m *Mesh) Dump(ctx context.Context, namespace, pod string) (*Dump, error) {
	proxy := m.proxy(namespace, pod)
	dump, err := proxy.Dump(ctx)
	return dump, errors.Join(err, proxy.Close())
}
