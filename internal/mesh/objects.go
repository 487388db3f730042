package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/apply"
)

// Objects are the objects that the lessons are made of, as the API server had them at one time. What does not exist is
// nil or empty.
type Objects struct {
	Target             Target
	Service            *corev1.Service
	Waypoint           *gatewayv1.Gateway
	WaypointDeployment *appsv1.Deployment
	WaypointPods       apply.Pods
	// AppPods are the pods of the namespace that have a label app, by its value.
	AppPods map[string][]corev1.Pod
	// Ztunnels are the pods of ztunnel, on every node.
	Ztunnels            []corev1.Pod
	VirtualServices     []*networkingv1.VirtualService
	Policies            []*securityv1.AuthorizationPolicy
	PeerAuthentications []*securityv1.PeerAuthentication
	Routes              []*gatewayv1.HTTPRoute
	Tracing             Tracing
}

// Objects reads the objects of a target. The errors of what cannot be read are joined; the rest is there.
func (m *Mesh) Objects(ctx context.Context, t Target) (*Objects, error) {
	namespace := t.Service.Namespace
	var errs [9]error
	o, err := m.waypointObjects(ctx, t)
	errs[0] = err
	o.WaypointPods, errs[1] = m.readPods(ctx, namespace, t.Waypoint)
	o.VirtualServices, errs[2] = list[networkingv1.VirtualService](ctx, m, virtualServices(), namespace)
	o.Policies, errs[3] = list[securityv1.AuthorizationPolicy](ctx, m, authorizationPolicies(), namespace)
	o.PeerAuthentications, errs[4] = list[securityv1.PeerAuthentication](ctx, m, peerAuthentications(), namespace)
	o.Ztunnels, errs[5] = m.ztunnels(ctx)
	o.Routes, errs[6] = list[gatewayv1.HTTPRoute](ctx, m, httpRoutes(), namespace)
	o.Tracing, errs[7] = m.tracing(ctx)
	pods, err := m.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app"})
	if err != nil {
		errs[8] = fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
		return o, errors.Join(errs[:]...)
	}
	o.AppPods = map[string][]corev1.Pod{}
	for _, pod := range pods.Items {
		o.AppPods[pod.Labels["app"]] = append(o.AppPods[pod.Labels["app"]], pod)
	}
	return o, errors.Join(errs[:]...)
}

// waypointObjects reads what decides whether the waypoint handles a target's traffic, but for the pods.
func (m *Mesh) waypointObjects(ctx context.Context, t Target) (*Objects, error) {
	o := &Objects{Target: t}
	var errs [3]error
	o.Service, errs[0] = m.service(ctx, t.Service.Namespace, t.Service.Name)
	o.Waypoint, errs[1] = get[gatewayv1.Gateway](ctx, m, gateways(), t.Service.Namespace, t.Waypoint)
	deployment, err := m.kube.AppsV1().Deployments(t.Service.Namespace).Get(ctx, t.Waypoint, metav1.GetOptions{})
	o.WaypointDeployment, errs[2] = found(deployment, err, "Deployment", t.Waypoint)
	return o, errors.Join(errs[:]...)
}

// The kinds that are read beyond Kubernetes' own. Their objects are decoded into the types of their projects.
func gateways() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "gateways"}
}

func httpRoutes() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: gatewayv1.GroupName, Version: "v1", Resource: "httproutes"}
}

func virtualServices() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("virtualservices")
}

func authorizationPolicies() schema.GroupVersionResource {
	return securityv1.SchemeGroupVersion.WithResource("authorizationpolicies")
}

func peerAuthentications() schema.GroupVersionResource {
	return securityv1.SchemeGroupVersion.WithResource("peerauthentications")
}

// get reads an object; nil where it does not exist, or its kind is not installed.
func get[T any](ctx context.Context, m *Mesh, kind schema.GroupVersionResource, namespace, name string) (*T, error) {
	object, err := m.objects.Resource(kind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apimeta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s %s/%s: %w", kind.Resource, namespace, name, err)
	}
	return decodeObject[T](object.Object)
}

func list[T any](ctx context.Context, m *Mesh, kind schema.GroupVersionResource, namespace string) ([]*T, error) {
	found, err := m.objects.Resource(kind).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsNotFound(err) || apimeta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing %s in namespace %s: %w", kind.Resource, namespace, err)
	}
	var all []*T
	for _, item := range found.Items {
		object, err := decodeObject[T](item.Object)
		if err != nil {
			return nil, err
		}
		all = append(all, object)
	}
	return all, nil
}

// decodeObject goes through JSON: the specs of Istio's types are protobuf messages with a JSON form of their own.
func decodeObject[T any](object map[string]any) (*T, error) {
	raw, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("decoding an object: %w", err)
	}
	typed := new(T)
	if err := json.Unmarshal(raw, typed); err != nil {
		return nil, fmt.Errorf("decoding %T: %w", typed, err)
	}
	return typed, nil
}

func (m *Mesh) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	service, err := m.kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	return found(service, err, "Service", name)
}

// found gives nil for an object that does not exist.
func found[T any](object *T, err error, kind, name string) (*T, error) {
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s %s: %w", kind, name, err)
	}
	return object, nil
}

// readPods reads a Gateway's pods and what apply.Pods.Trouble needs to know of them.
func (m *Mesh) readPods(ctx context.Context, namespace, gateway string) (apply.Pods, error) {
	pods, err := m.podsOf(ctx, namespace, gateway)
	if err != nil {
		return apply.Pods{}, err
	}
	read := apply.ReadPods(ctx, m.kube, namespace, pods)
	read.Causes = Causes()
	return read, nil
}

// WaypointAddresses are those under which the gateway may know the waypoint: its pods' and its Service's. Without a
// Service there are none.
func (m *Mesh) WaypointAddresses(ctx context.Context, t Target) ([]string, error) {
	pods, err := m.podsOf(ctx, t.Service.Namespace, t.Waypoint)
	if err != nil {
		return nil, err
	}
	service, err := m.service(ctx, t.Service.Namespace, t.Waypoint)
	if err != nil || service == nil {
		return nil, err
	}
	var addresses []string
	for _, pod := range pods {
		for _, ip := range pod.Status.PodIPs {
			addresses = append(addresses, ip.IP)
		}
	}
	return append(addresses, service.Spec.ClusterIPs...), nil
}
