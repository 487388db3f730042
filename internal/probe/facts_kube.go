package probe

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/probe/traffic"
)

// Facts implements World. It reads the objects that the lessons are made of, as they are in the cluster.
func (k *Kubernetes) Facts(ctx context.Context) (Facts, error) {
	var f Facts
	return f, errors.Join(
		k.serviceFacts(ctx, &f),
		k.waypointFacts(ctx, &f),
		k.podFacts(ctx, &f),
		k.policyFacts(ctx, &f),
		k.routeFacts(ctx, &f),
	)
}

func (k *Kubernetes) get(ctx context.Context, group, resource, name string) (map[string]any, error) {
	version := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	object, err := k.objects.Resource(version).Namespace(k.names.Namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s %s: %w", resource, name, err)
	}
	return object.Object, nil
}

func (k *Kubernetes) list(ctx context.Context, group, resource string) ([]map[string]any, error) {
	version := schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource}
	list, err := k.objects.Resource(version).Namespace(k.names.Namespace).List(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err): // the kind itself is not installed
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("listing %s: %w", resource, err)
	}
	objects := make([]map[string]any, len(list.Items))
	for i := range list.Items {
		objects[i] = list.Items[i].Object
	}
	return objects, nil
}

func (k *Kubernetes) serviceFacts(ctx context.Context, f *Facts) error {
	service, err := k.get(ctx, "", "services", k.names.Appb)
	f.UseWaypoint = text(service, "metadata", "labels", "istio.io/use-waypoint")
	f.IngressUseWaypoint = text(service, "metadata", "labels", "istio.io/ingress-use-waypoint")
	_, f.WaypointBound = condition(service, "istio.io/WaypointBound")
	return err
}

func (k *Kubernetes) waypointFacts(ctx context.Context, f *Facts) error {
	gateway, err := k.get(ctx, "gateway.networking.k8s.io", "gateways", k.names.Waypoint)
	if err != nil || gateway == nil {
		return err
	}
	f.WaypointExists = true
	f.Programmed, f.ProgrammedMessage = condition(gateway, "Programmed")
	pods, err := k.cluster.Pods(ctx, k.names.Namespace, gatewayLabel+"="+k.names.Waypoint)
	if err != nil {
		return fmt.Errorf("listing the waypoint's pods: %w", err)
	}
	for _, p := range pods {
		if p.Ready {
			f.WaypointReady++
		} else {
			f.WaypointWaits = p.Name + " is not ready"
		}
	}
	if len(pods) == 0 {
		f.WaypointWaits = "it has no pods at all"
	}
	return nil
}

// redirected is what istio-cni writes on a pod whose traffic goes through ztunnel.
const redirected = "ambient.istio.io/redirection"

func (k *Kubernetes) podFacts(ctx context.Context, f *Facts) error {
	appa, err := k.cluster.Pods(ctx, k.names.Namespace, "app="+k.names.Appa)
	if err != nil {
		return fmt.Errorf("listing appa's pods: %w", err)
	}
	f.AppaMeshed, f.AppaWhyNot = meshed(appa)
	appb, err := k.cluster.Pods(ctx, k.names.Namespace, "app="+k.names.Appb)
	if err != nil {
		return fmt.Errorf("listing appb's pods: %w", err)
	}
	f.AppbMeshed, _ = meshed(appb)
	return nil
}

func meshed(pods []traffic.Pod) (is bool, whyNot string) {
	if len(pods) == 0 {
		return false, "it has no pod"
	}
	for _, p := range pods {
		switch {
		case p.Labels["istio.io/dataplane-mode"] == "none":
			return false, "its label istio.io/dataplane-mode is none"
		case p.Annotations[redirected] != "enabled":
			return false, "istio-cni has not marked it with " + redirected + "=enabled"
		}
	}
	return true, ""
}

func (k *Kubernetes) policyFacts(ctx context.Context, f *Facts) error {
	policies, err := k.list(ctx, "security.istio.io", "authorizationpolicies")
	if err != nil {
		return err
	}
	for _, p := range policies {
		fact := PolicyFact{Name: text(p, "metadata", "name"), Action: text(p, "spec", "action")}
		_, fact.Selector, _ = unstructured.NestedMap(p, "spec", "selector")
		for _, target := range entries(p, "spec", "targetRefs") {
			fact.Targets = append(fact.Targets, text(target, "kind")+"/"+text(target, "name"))
		}
		for _, rule := range entries(p, "spec", "rules") {
			for _, to := range entries(rule, "to") {
				operation, _, _ := unstructured.NestedMap(to, "operation")
				for _, layer7 := range []string{"methods", "notMethods", "paths", "notPaths", "hosts", "notHosts"} {
					_, has := operation[layer7]
					fact.Layer7 = fact.Layer7 || has
				}
			}
		}
		if accepted, message := condition(p, "WaypointAccepted"); !accepted {
			fact.Message = message
		}
		f.Policies = append(f.Policies, fact)
	}
	peers, err := k.list(ctx, "security.istio.io", "peerauthentications")
	for _, p := range peers {
		f.StrictTLS = f.StrictTLS || text(p, "spec", "mtls", "mode") == "STRICT"
	}
	return err
}

func (k *Kubernetes) routeFacts(ctx context.Context, f *Facts) error {
	routes, err := k.list(ctx, "networking.istio.io", "virtualservices")
	for _, r := range routes {
		fact := RouteFact{Name: text(r, "metadata", "name")}
		fact.Hosts, _, _ = unstructured.NestedStringSlice(r, "spec", "hosts")
		for _, rule := range entries(r, "spec", "http") {
			if _, delayed, _ := unstructured.NestedMap(rule, "fault", "delay"); !delayed {
				continue
			}
			fact.Delay = text(rule, "fault", "delay", "fixedDelay")
			value, _, _ := unstructured.NestedFieldNoCopy(rule, "fault", "delay", "percentage", "value")
			switch percent := value.(type) {
			case int64:
				fact.Percent = float64(percent)
			case float64:
				fact.Percent = percent
			}
			for _, match := range entries(rule, "match") {
				if path := text(match, "uri", "exact"); path != "" {
					fact.Paths = append(fact.Paths, path)
				}
			}
		}
		f.Routes = append(f.Routes, fact)
	}
	return err
}

// condition gives whether a status condition is True, and its message.
func condition(object map[string]any, kind string) (holds bool, message string) {
	for _, c := range entries(object, "status", "conditions") {
		if text(c, "type") == kind {
			return text(c, "status") == "True", text(c, "message")
		}
	}
	return false, ""
}

func text(object map[string]any, path ...string) string {
	value, _, _ := unstructured.NestedString(object, path...)
	return value
}

func entries(object map[string]any, path ...string) []map[string]any {
	list, _, _ := unstructured.NestedSlice(object, path...)
	var all []map[string]any
	for _, item := range list {
		if m, ok := item.(map[string]any); ok {
			all = append(all, m)
		}
	}
	return all
}
