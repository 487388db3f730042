package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/problem"
)

// labelGatewayName is on everything that a controller makes for a Gateway.
const labelGatewayName = "gateway.networking.k8s.io/gateway-name"

// gatewayState wants a Gateway's controller to have accepted and programmed it.
func gatewayState(obj *unstructured.Unstructured) state {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	return requireConditions(obj, conditions, "Accepted", "Programmed")
}

// overlookedAfter is how long a Gateway's controller may take to see that its pods are
// ready. istiod collects events for ten seconds at most (PILOT_DEBOUNCE_MAX).
const overlookedAfter = 15 * time.Second

// overlooked tells a Gateway that waits for something from one that its controller has
// forgotten: the status says that it has no address, and yet every Service that was
// made for it has ready pods and, where it is to have one, an address. s is what the
// status says.
//
// istiod (release 1.31) computes a Gateway's status when Services change, not when
// endpoints do. It takes the first endpoints of a Service for such a change, but not
// where its index still holds a deleted Service of that name, which happens when the
// last news of the old pods comes after that of the Service's end: see
// EndpointIndex.UpdateServiceEndpoints and PushContext.updateContext in pilot/pkg/model.
func (c *Client) overlooked(ctx context.Context, gateway *unstructured.Unstructured, s state) (state, error) {
	conditions, _, _ := unstructured.NestedSlice(gateway.Object, "status", "conditions")
	status, message, stale := condition(gateway, conditions, "Programmed")
	if status != string(corev1.ConditionFalse) || stale || !strings.HasPrefix(message, "AddressNotAssigned") {
		return s, nil
	}
	services := &corev1.ServiceList{}
	made := client.MatchingLabels{labelGatewayName: gateway.GetName()}
	if err := c.api.List(ctx, services, client.InNamespace(gateway.GetNamespace()), made); err != nil {
		return state{}, fmt.Errorf("listing the Services of Gateway %s: %w", gateway.GetName(), err)
	}
	for i := range services.Items {
		service := &services.Items[i]
		if !serviceState(service).done {
			return s, nil
		}
		ready, err := c.hasReadyPod(ctx, service.Namespace, service.Name)
		if err != nil || !ready {
			return s, err
		}
		s.message += fmt.Sprintf("; yet pods are ready behind Service %s", service.Name)
		s.kind, s.patience = problem.GatewayOverlooked, overlookedAfter
	}
	return s, nil
}

// gatewayClassState wants a class to have a controller.
func gatewayClassState(obj *unstructured.Unstructured) state {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	return requireConditions(obj, conditions, "Accepted")
}

// routeState wants every parent of a route to have accepted it and found its backends.
func routeState(obj *unstructured.Unstructured) state {
	wanted, _, _ := unstructured.NestedSlice(obj.Object, "spec", "parentRefs")
	parents, _, _ := unstructured.NestedSlice(obj.Object, "status", "parents")
	if len(parents) < len(wanted) {
		return waiting("%d of its %d parents have answered", len(parents), len(wanted))
	}
	for _, p := range parents {
		parent, _ := p.(map[string]any)
		conditions, _ := parent["conditions"].([]any)
		if s := requireConditions(obj, conditions, "Accepted", "ResolvedRefs"); !s.done {
			name, _, _ := unstructured.NestedString(parent, "parentRef", "name")
			s.message = "of parent " + name + ", " + s.message
			return s
		}
	}
	return state{done: true}
}

// gatewayWorkload wants the Deployments that were made for a Gateway to be available.
// A Gateway without any is served by something else, and ready.
func (c *Client) gatewayWorkload(ctx context.Context, gateway *unstructured.Unstructured) (state, error) {
	list := &appsv1.DeploymentList{}
	err := c.api.List(ctx, list, client.InNamespace(gateway.GetNamespace()), client.MatchingLabels{labelGatewayName: gateway.GetName()})
	if err != nil {
		return state{}, fmt.Errorf("listing the Deployments of Gateway %s: %w", gateway.GetName(), err)
	}
	for i := range list.Items {
		if s := deploymentState(&list.Items[i]); !s.done {
			s.message = "its Deployment " + list.Items[i].Name + " is not available: " + s.message
			return s, nil
		}
	}
	return state{done: true}, nil
}
