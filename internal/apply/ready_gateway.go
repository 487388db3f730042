package apply

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// labelGatewayName is on everything that a controller makes for a Gateway.
const labelGatewayName = "gateway.networking.k8s.io/gateway-name"

// gatewayState wants a Gateway's controller to have accepted and programmed it.
func gatewayState(obj *unstructured.Unstructured) state {
	conditions, _, _ := unstructured.NestedSlice(obj.Object, "status", "conditions")
	return requireConditions(obj, conditions, "Accepted", "Programmed")
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
