package mesh

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
)

// Kinds says when the Gateway API's objects are ready. GRPCRoutes have the same status as HTTPRoutes.
func Kinds() map[schema.GroupKind]apply.Kind {
	group := func(kind string) schema.GroupKind { return schema.GroupKind{Group: gatewayv1.GroupName, Kind: kind} }
	route := apply.Kind{State: typed(routeState)}
	return map[schema.GroupKind]apply.Kind{
		group("Gateway"): {
			State: typed(gatewayState),
			Watch: []schema.GroupVersionKind{appsv1.SchemeGroupVersion.WithKind("Deployment")},
			Pods:  func(gateway *unstructured.Unstructured) string { return GatewayLabel + "=" + gateway.GetName() },
		},
		group("GatewayClass"): {State: typed(classState)},
		group("HTTPRoute"):    route,
		group("GRPCRoute"):    route,
	}
}

// Causes maps words of a warning about a pod that does not start to the problem that it shows. istio-cni sets up no
// pod's network while the node's ztunnel is not connected to it; the event is about the sandbox, and does not name
// Istio (istio, cni/pkg/nodeagent/ztunnelserver_linux.go).
func Causes() map[string]problem.Kind {
	return map[string]problem.Kind{"no ztunnel connection": problem.ZtunnelDown}
}

// stateOf says whether an object is ready.
type stateOf[T any] = func(context.Context, client.Reader, *T) (apply.State, error)

// typed makes a function of unstructured objects of one of typed objects.
func typed[T any](state stateOf[T]) stateOf[unstructured.Unstructured] {
	return func(ctx context.Context, api client.Reader, obj *unstructured.Unstructured) (apply.State, error) {
		into := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
			return apply.Waiting("its status cannot be read: %v", err), nil
		}
		return state(ctx, api, into)
	}
}

// gatewayState is ready when a Gateway's controller has accepted and programmed it, and the Deployments that were made
// for it are available: both conditions are True while the only pod cannot pull its image. A Gateway without a
// Deployment is served by something else.
func gatewayState(ctx context.Context, api client.Reader, gateway *gatewayv1.Gateway) (apply.State, error) {
	s := apply.ConditionsState(gateway.Generation, gateway.Status.Conditions,
		string(gatewayv1.GatewayConditionAccepted), string(gatewayv1.GatewayConditionProgrammed))
	if !s.Ready {
		return overlookedState(ctx, api, gateway, s)
	}
	list := &appsv1.DeploymentList{}
	if err := listMadeFor(ctx, api, gateway, list); err != nil {
		return apply.State{}, fmt.Errorf("listing the Deployments of Gateway %s: %w", gateway.Name, err)
	}
	for i := range list.Items {
		if s := apply.DeploymentState(&list.Items[i]); !s.Ready {
			s.Message = "its Deployment " + list.Items[i].Name + " is not available: " + s.Message
			return s, nil
		}
	}
	return apply.State{Ready: true}, nil
}

// overlookedAfter is how long istiod may take to see that a Gateway's pods are ready. It collects events for ten
// seconds at most (PILOT_DEBOUNCE_MAX in pilot/pkg/features/pilot.go).
const overlookedAfter = 15 * time.Second

// overlookedState finds a Gateway whose pods istiod has overlooked: the status says that it has no address, and yet
// every Service that was made for it has ready pods and, where it is to have one, an address. s is what the status
// says.
//
// istiod (release 1.31) computes a Gateway's status when Services change, not when endpoints do. The first endpoints of
// a Service count as such a change, but not where istiod's index still holds a deleted Service of that name, which
// happens when the last event of the old pods comes after that of the Service's deletion:
// EndpointIndex.UpdateServiceEndpoints and PushContext.updateContext in pilot/pkg/model.
func overlookedState(
	ctx context.Context, api client.Reader, gateway *gatewayv1.Gateway, s apply.State,
) (apply.State, error) {
	if !lacksAddress(gateway) {
		return s, nil
	}
	services := &corev1.ServiceList{}
	if err := listMadeFor(ctx, api, gateway, services); err != nil {
		return apply.State{}, fmt.Errorf("listing the Services of Gateway %s: %w", gateway.Name, err)
	}
	var names []string
	for i := range services.Items {
		service := &services.Items[i]
		if !apply.ServiceState(service).Ready {
			return s, nil
		}
		ready, err := apply.HasReadyPod(ctx, api, service.Namespace, service.Name)
		if err != nil || !ready {
			return s, err
		}
		names = append(names, service.Name)
	}
	if len(names) > 0 {
		s.Message += "; but pods of Service " + strings.Join(names, ", ") + " are ready"
		s.Kind, s.Limit = problem.GatewayOverlooked, overlookedAfter
	}
	return s, nil
}

// lacksAddress tells whether a Gateway's status says, of its latest change, that it has no address.
func lacksAddress(gateway *gatewayv1.Gateway) bool {
	programmed := apimeta.FindStatusCondition(gateway.Status.Conditions, string(gatewayv1.GatewayConditionProgrammed))
	return programmed != nil && programmed.ObservedGeneration >= gateway.Generation &&
		programmed.Status == metav1.ConditionFalse &&
		programmed.Reason == string(gatewayv1.GatewayReasonAddressNotAssigned)
}

// listMadeFor lists the objects of a kind that were made for a Gateway.
func listMadeFor(ctx context.Context, api client.Reader, gateway *gatewayv1.Gateway, list client.ObjectList) error {
	return api.List(ctx, list, client.InNamespace(gateway.Namespace), client.MatchingLabels{GatewayLabel: gateway.Name})
}

// classState is ready when a controller has accepted a GatewayClass.
func classState(_ context.Context, _ client.Reader, class *gatewayv1.GatewayClass) (apply.State, error) {
	accepted := string(gatewayv1.GatewayClassConditionStatusAccepted)
	return apply.ConditionsState(class.Generation, class.Status.Conditions, accepted), nil
}

// routeState is ready when every parent of a route has accepted it and found its backends.
func routeState(_ context.Context, _ client.Reader, route *gatewayv1.HTTPRoute) (apply.State, error) {
	parents := route.Status.Parents
	if wanted := len(route.Spec.ParentRefs); len(parents) < wanted {
		return apply.Waiting("%d of its %d parents have answered", len(parents), wanted), nil
	}
	for _, parent := range parents {
		s := apply.ConditionsState(route.Generation, parent.Conditions,
			string(gatewayv1.RouteConditionAccepted), string(gatewayv1.RouteConditionResolvedRefs))
		if !s.Ready {
			s.Message = fmt.Sprintf("of parent %s, %s", parent.ParentRef.Name, s.Message)
			return s, nil
		}
	}
	return apply.State{Ready: true}, nil
}
