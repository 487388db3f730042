package mesh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Target is what the lessons work on: one Service, its waypoint and the gateway before
// it, all in the Service's namespace.
type Target struct {
	Service Service
	// Waypoint and Gateway are the names of the Gateway objects. Gateway may be empty
	// where there is none.
	Waypoint, Gateway string
}

// Mesh asks an Istio whether configuration has arrived.
type Mesh struct {
	kube    kubernetes.Interface
	objects dynamic.Interface
	// proxy gives the proxy in a pod; it is closed after use.
	proxy func(namespace, pod string) Proxy
	// nodeProxy gives the ztunnel in a pod; it is closed after use. nil means that pods
	// run none.
	nodeProxy func(namespace, pod string) nodeProxy
}

// Option changes how a Mesh works.
type Option func(*Mesh)

// WithProxies replaces the port-forward to each pod's Envoy, for clusters whose pods run
// none: there istiod is asked what it would send.
func WithProxies(proxy func(namespace, pod string) Proxy) Option {
	return func(m *Mesh) { m.proxy, m.nodeProxy = proxy, nil }
}

// New makes a Mesh for a cluster.
func New(config *rest.Config, options ...Option) (*Mesh, error) {
	// A wait looks ten times a second; client-go's own limit of five requests a second
	// would stretch that without a word.
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

// The objects that are read. They come as plain maps: a handful of fields does not
// merit the clients of two projects.
func gateways() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}
}

func virtualServices() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}
}

func authorizationPolicies() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}
}

// gatewayLabel names the Gateway on everything that istiod makes for it.
const gatewayLabel = "gateway.networking.k8s.io/gateway-name"

// Pods lists the names of the pods of a Gateway, waypoint or ingress, that run and are
// not being deleted, in order.
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
		LabelSelector: gatewayLabel + "=" + gateway,
	})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of Gateway %s/%s: %w", namespace, gateway, err)
	}
	return list.Items, nil
}

// notRunning says why pods do not run, by the reason of the first container that waits.
func notRunning(pods []corev1.Pod) string {
	for _, pod := range pods {
		for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			if w := c.State.Waiting; w != nil && w.Reason != "" {
				return fmt.Sprintf("pod %s, container %s: %s", pod.Name, c.Name, join(w.Reason, w.Message))
			}
		}
		for _, c := range pod.Status.Conditions {
			if c.Status == corev1.ConditionFalse && c.Message != "" {
				return fmt.Sprintf("pod %s: %s", pod.Name, join(c.Reason, c.Message))
			}
		}
	}
	return ""
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ": ")
}

// condition reads a condition of an object's status.
func condition(object *unstructured.Unstructured, kind string) (status, reason, message string) {
	list, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	if err != nil {
		return "", "", ""
	}
	for _, item := range list {
		fields := node{item}
		if fields.get("type").str() == kind {
			return fields.get("status").str(), fields.get("reason").str(), fields.get("message").str()
		}
	}
	return "", "", ""
}

// Dump gives the configuration that a pod's proxy holds.
func (m *Mesh) Dump(ctx context.Context, namespace, pod string) (*Dump, error) {
	proxy := m.proxy(namespace, pod)
	dump, err := proxy.Dump(ctx)
	return dump, errors.Join(err, proxy.Close())
}
