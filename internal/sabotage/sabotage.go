// Package sabotage lists the ways in which an ambient mesh loses the effect of a lesson without an error: the API
// server accepts every object, and requests are answered.
package sabotage

import (
	"context"
	"fmt"
	"math"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe"
	"ambientlab/specs"
)

// Sabotage is one way.
type Sabotage struct {
	// Name identifies it; Title says for people what is wrong then.
	Name, Title string
	// Changes are made in order.
	Changes []Change
	// Shows, if not nil, tells whether the claims are refuted while the lessons are as given; they are otherwise.
	Shows func(probe.Lessons) bool
	// Unconfigured tells that the proxies' configuration stays the same, so that requests alone show it.
	Unconfigured bool
	// Claims are not proven then, and the likely causes that sm:verify prints for each of them contain the text Cause.
	Claims []string
	Cause  string
	// Target is the target, without sm:, that completes Mend.
	Target string
}

// Change is one change of an object, which Create or Patch gives.
type Change struct {
	Resource schema.GroupVersionResource
	// Namespace is the namespace of the lessons when empty. The object has the name Object; where that is empty, every
	// object with the labels of Selector is changed.
	Namespace, Object, Selector string
	// Create is the spec of an object to create. Mend deletes it.
	Create string
	// Patch, of type Type, changes an object that exists. Mend patches it with Undo, a merge patch, or with Delete
	// deletes it, so that the lesson's target creates it again: the target changes no field that another field manager
	// owns. With neither, the target alone undoes the change.
	Type   types.PatchType
	Patch  string
	Undo   string
	Delete bool
	// Remove deletes the object instead. The target creates it again.
	Remove bool
}

var (
	policies = schema.GroupVersionResource{
		Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies",
	}
	peerAuthentications = schema.GroupVersionResource{
		Group: "security.istio.io", Version: "v1", Resource: "peerauthentications",
	}
	virtualServices = schema.GroupVersionResource{
		Group: "networking.istio.io", Version: "v1", Resource: "virtualservices",
	}
	httpRoutes = schema.GroupVersionResource{
		Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes",
	}
	telemetries = schema.GroupVersionResource{Group: "telemetry.istio.io", Version: "v1", Resource: "telemetries"}
	services    = schema.GroupVersionResource{Version: "v1", Resource: "services"}
	pods        = schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

// All lists every way, in the order of the targets whose effect is lost.
func All() []Sabotage {
	post := []string{"authz-post-appa", "authz-post-gateway", "authz-outsider"}
	delays := []string{"fault-appa", "fault-gateway"}
	return []Sabotage{
		{
			Name: "no-ztunnel", Title: "no node has a ztunnel", Unconfigured: true,
			Changes: []Change{{
				Resource:  schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"},
				Namespace: names.Istio, Object: "ztunnel", Type: types.MergePatchType,
				Patch: `{"spec":{"template":{"spec":{"nodeSelector":{"lab.opssec.in/no-such-node":"true"}}}}}`,
				Undo:  `{"spec":{"template":{"spec":{"nodeSelector":{"lab.opssec.in/no-such-node":null}}}}}`,
			}},
			Claims: []string{"reach-appa", "reach-gateway"}, Cause: "no ready ztunnel", Target: "install",
		},
		{
			Name: "ingress-label", Title: "Service appb has no label istio.io/ingress-use-waypoint",
			Changes: []Change{{
				Resource: services, Object: names.AppB, Type: types.MergePatchType,
				Patch: `{"metadata":{"labels":{"istio.io/ingress-use-waypoint":null}}}`,
			}},
			Claims: []string{"waypoint-gateway", "fault-gateway", "authz-post-gateway"},
			Cause:  "ingress-use-waypoint", Target: "waypoint",
		},
		{
			Name: "waypoint-scaled-to-zero", Title: "the waypoint's Deployment has no replicas",
			Changes: []Change{{
				Resource: deployments, Object: names.Waypoint, Type: types.MergePatchType,
				Patch: `{"spec":{"replicas":0}}`, Undo: `{"spec":{"replicas":1}}`,
			}},
			Claims: []string{"waypoint-appa", "waypoint-gateway", "authz-post-appa"},
			Cause:  "scaled to zero", Target: "waypoint",
		},
		{
			Name: "delay-for-another-host", Title: "the VirtualService of the delay is for the host of appa",
			Changes: []Change{{
				Resource: virtualServices, Object: names.Delay, Type: types.MergePatchType,
				Patch:  `{"spec":{"hosts":["appa.default.svc.cluster.local"]}}`,
				Delete: true,
			}},
			Claims: delays, Cause: "for the host appa", Target: "fault",
		},
		{
			Name: "another-percentage", Title: "the VirtualService delays 30 % of the requests, whatever was asked for",
			Changes: []Change{{
				Resource: virtualServices, Object: names.Delay, Type: types.JSONPatchType,
				Patch: `[{"op":"replace","path":"/spec/http/0/fault/delay/percentage/value","value":30}]`,
			}},
			Shows: func(on probe.Lessons) bool { // far enough from 30 % to be told from it
				fault := on.Fault()
				return fault != nil && math.Abs(fault.Percent-30) >= 100*probe.Within
			},
			Claims: delays, Cause: "30 %", Target: "fault",
		},
		{
			Name: "policy-with-selector", Title: "the AuthorizationPolicy has a selector instead of targetRefs",
			Changes: []Change{{
				Resource: policies, Object: names.GetOnly, Type: types.MergePatchType,
				Patch:  `{"spec":{"targetRefs":null,"selector":{"matchLabels":{"app":"appb"}}}}`,
				Delete: true,
			}},
			Claims: post, Cause: "`selector`", Target: "authz",
		},
		{
			Name: "second-policy", Title: "a second AuthorizationPolicy allows every request",
			Changes: []Change{{
				Resource: policies, Object: "appb-allow-everything", Create: "sabotage/second-policy.yaml",
			}},
			Claims: post, Cause: "AuthorizationPolicy appb-allow-everything", Target: "authz",
		},
		{
			// Each change alone lets no caller in: STRICT refuses plain text, the policy all but the waypoint.
			Name:  "permissive",
			Title: "mutual TLS is PERMISSIVE, and the policy at the pod is about callers that have an identity",
			Changes: []Change{
				{
					Resource: peerAuthentications, Object: "strict", Type: types.MergePatchType,
					Patch: `{"spec":{"mtls":{"mode":"PERMISSIVE"}}}`,
				},
				{
					Resource: policies, Object: names.OnlyViaWaypoint, Type: types.JSONPatchType,
					Patch:  `[{"op":"add","path":"/spec/rules/0/from/0/source/principals","value":["*"]}]`,
					Delete: true,
				},
			},
			Shows: probe.Strict, Claims: []string{"unmeshed-closed"}, Cause: "STRICT mutual TLS", Target: "authz",
		},
	}
}

// Further lists the ways of the lessons sm:l4 and sm:split, which are not part of sm:lab. They need both.
func Further() []Sabotage {
	shares := []string{"split-appa", "split-gateway"}
	return []Sabotage{
		{
			Name: "another-weight", Title: "the HTTPRoute sends 30 % of the requests to version 2",
			Changes: []Change{{
				Resource: httpRoutes, Object: lesson.SplitRoute, Type: types.JSONPatchType,
				Patch: `[{"op":"replace","path":"/spec/rules/0/backendRefs/0/weight","value":70},` +
					`{"op":"replace","path":"/spec/rules/0/backendRefs/1/weight","value":30}]`,
				Delete: true,
			}},
			Claims: shares, Cause: "asks for 70 % to appb-v1, 30 % to appb-v2", Target: "split",
		},
		{
			Name: "route-of-another-service", Title: "the HTTPRoute is attached to Service appa",
			Changes: []Change{{
				Resource: httpRoutes, Object: lesson.SplitRoute, Type: types.JSONPatchType,
				Patch:  `[{"op":"replace","path":"/spec/parentRefs/0/name","value":"appa"}]`,
				Delete: true,
			}},
			Claims: shares, Cause: "attached to Service/appa, not to Service/appb", Target: "split",
		},
		{
			Name: "l4-for-another-identity", Title: "the policy at appb's pod denies another service account",
			Changes: []Change{{
				Resource: policies, Object: lesson.L4Policy, Type: types.JSONPatchType,
				Patch: `[{"op":"replace","path":"/spec/rules/0/from/0/source/principals/0",` +
					`"value":"cluster.local/ns/default/sa/appc"}]`,
				Delete: true,
			}},
			Claims: []string{"l4-denied"}, Cause: "sa/appc, not the service account appa", Target: "l4",
		},
		{
			Name: "l4-with-target-refs", Title: "the policy has targetRefs instead of a selector",
			Changes: []Change{{
				Resource: policies, Object: lesson.L4Policy, Type: types.MergePatchType,
				Patch: `{"spec":{"selector":null,"targetRefs":[{"group":"","kind":"Service","name":"appb"}]}}`,
				// The target would keep the fields of another field manager.
				Delete: true,
			}},
			Claims: []string{"l4-denied"}, Cause: "no `selector`", Target: "l4",
		},
	}
}

// Addons lists the ways in which the telemetry add-ons show less than there is. They need sm:telemetry, the add-ons
// Prometheus and Jaeger, and no sm:authz and sm:fault.
func Addons() []Sabotage {
	telemetry := func(change Change) []Change {
		change.Resource, change.Namespace, change.Object = telemetries, names.Istio, "mesh-default"
		return []Change{change}
	}
	traces := []string{"jaeger-trace", "jaeger-requests"}
	return []Sabotage{
		{
			Name: "no-telemetry", Title: "the mesh has no Telemetry, so no proxy sends traces",
			Changes: telemetry(Change{Remove: true}),
			Claims:  traces, Cause: "is no Telemetry in namespace", Target: "install",
		},
		{
			Name: "no-sampling", Title: "the Telemetry asks for traces of no request",
			Changes: telemetry(Change{
				Type: types.JSONPatchType, Delete: true,
				Patch: `[{"op":"replace","path":"/spec/tracing/0/randomSamplingPercentage","value":0}]`,
			}),
			// Of a trace that its caller began, the caller has decided that it is sampled.
			Claims: []string{"jaeger-requests"}, Cause: "traces 0 % of the requests", Target: "install",
		},
		{
			Name: "another-provider", Title: "the Telemetry names a provider that does not exist",
			Changes: telemetry(Change{
				Type: types.JSONPatchType, Delete: true,
				Patch: `[{"op":"replace","path":"/spec/tracing/0/providers/0/name","value":"zipkin"}]`,
			}),
			Claims: traces, Cause: "to the provider zipkin, not to jaeger", Target: "install",
		},
		{
			Name: "collector-without-pods", Title: "the Service that the proxies send traces to selects no pod",
			Changes: []Change{{
				Resource: services, Namespace: names.Istio, Object: "jaeger-collector", Type: types.MergePatchType,
				Patch: `{"spec":{"selector":{"app":"zipkin"}}}`, Undo: `{"spec":{"selector":{"app":"jaeger"}}}`,
			}},
			Claims: traces, Cause: "selects app=zipkin", Target: "install",
		},
		{
			Name: "node-proxies-not-read", Title: "the node proxies' pods tell Prometheus not to read them",
			Changes: []Change{{
				Resource: pods, Namespace: names.Istio, Selector: "app=ztunnel", Type: types.MergePatchType,
				Patch: `{"metadata":{"annotations":{"prometheus.io/scrape":"false"}}}`,
				Undo:  `{"metadata":{"annotations":{"prometheus.io/scrape":"true"}}}`,
			}},
			Claims: []string{"prometheus-targets"}, Cause: "no annotation prometheus.io/scrape", Target: "telemetry",
		},
	}
}

// Break makes the changes, in the namespace of the lessons. Proxies have them some seconds later.
func (s Sabotage) Break(ctx context.Context, client dynamic.Interface, namespace string) error {
	for _, change := range s.Changes {
		objects := change.of(client, namespace)
		if change.Create != "" {
			if err := change.create(ctx, objects); err != nil {
				return err
			}
			continue
		}
		if err := change.each(ctx, objects, func(name string) error {
			if change.Remove {
				err := objects.Delete(ctx, name, metav1.DeleteOptions{})
				if apierrors.IsNotFound(err) { // it was removed before
					return nil
				}
				return err
			}
			_, err := objects.Patch(ctx, name, change.Type, []byte(change.Patch), metav1.PatchOptions{})
			return err
		}); err != nil {
			return fmt.Errorf("changing %s %s%s: %w", change.Resource.Resource, change.Object, change.Selector, err)
		}
	}
	return nil
}

// Mend undoes the part of the changes that the target Target does not undo. An object that was deleted in the meantime
// is no error.
func (s Sabotage) Mend(ctx context.Context, client dynamic.Interface, namespace string) error {
	for _, change := range s.Changes {
		objects := change.of(client, namespace)
		var err error
		switch {
		case change.Undo != "":
			err = change.each(ctx, objects, func(name string) error {
				_, err := objects.Patch(ctx, name, types.MergePatchType, []byte(change.Undo), metav1.PatchOptions{})
				return err
			})
		case change.Create != "", change.Delete:
			err = objects.Delete(ctx, change.Object, metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("mending %s %s: %w", change.Resource.Resource, change.Object, err)
		}
	}
	return nil
}

// each calls do with the name of every object that the change is about.
func (c Change) each(ctx context.Context, objects dynamic.ResourceInterface, do func(name string) error) error {
	if c.Selector == "" {
		return do(c.Object)
	}
	found, err := objects.List(ctx, metav1.ListOptions{LabelSelector: c.Selector})
	if err != nil {
		return err
	}
	if len(found.Items) == 0 {
		return fmt.Errorf("no object has the labels %s", c.Selector)
	}
	for _, object := range found.Items {
		if err := do(object.GetName()); err != nil {
			return err
		}
	}
	return nil
}

func (c Change) of(client dynamic.Interface, namespace string) dynamic.ResourceInterface {
	if c.Namespace != "" {
		namespace = c.Namespace
	}
	return client.Resource(c.Resource).Namespace(namespace)
}

func (c Change) create(ctx context.Context, objects dynamic.ResourceInterface) error {
	list, err := specs.Objects(c.Create, nil)
	if err != nil {
		return err
	}
	for _, object := range list {
		_, err := objects.Create(ctx, object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating %s: %w", describe(object), err)
		}
	}
	return nil
}

func describe(object *unstructured.Unstructured) string {
	return object.GetKind() + " " + object.GetName()
}
