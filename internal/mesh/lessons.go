package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// WaitFault returns when every replica of the target's waypoint delays as wanted, on
// connections that were open before as well.
// virtualService is the name of the object that asks for it, in the Service's
// namespace: where the delay does not arrive, its spec says why.
func (m *Mesh) WaitFault(ctx context.Context, t Target, virtualService string, want params.Fault) error {
	return m.await(ctx, "delay of "+want.String(), m.onWaypoint(t, faultOn(t, want)), m.whyNot(t, func(ctx context.Context) (finding, error) {
		return m.virtualServiceTrouble(ctx, t, virtualService)
	}))
}

// Fault looks once whether WaitFault would return at once, and if not, why.
func (m *Mesh) Fault(ctx context.Context, t Target, want params.Fault) (held bool, reason string, err error) {
	return m.once(ctx, m.onWaypoint(t, faultOn(t, want)))
}

// WaitFaultOff returns when no replica of the target's waypoint delays requests for a
// path.
func (m *Mesh) WaitFaultOff(ctx context.Context, t Target, path string) error {
	return m.await(ctx, fmt.Sprintf("delay of %s, off", path), m.offWaypoint(t, faultOff(t, path)), m.whyNot(t, nil))
}

// FaultOff looks once whether WaitFaultOff would return at once.
func (m *Mesh) FaultOff(ctx context.Context, t Target, path string) (held bool, reason string, err error) {
	return m.once(ctx, m.offWaypoint(t, faultOff(t, path)))
}

// WaitAuthz returns when every replica of the target's waypoint enforces the policy as
// wanted, on connections that were open before as well.
func (m *Mesh) WaitAuthz(ctx context.Context, t Target, want Policy) error {
	return m.await(ctx, "policy "+want.Name, m.onWaypoint(t, authzOn(t, want)), m.whyNot(t, func(ctx context.Context) (finding, error) {
		return m.policyTrouble(ctx, want.Namespace, want.Name, "WaypointAccepted")
	}))
}

// Authz looks once whether WaitAuthz would return at once, and if not, why.
func (m *Mesh) Authz(ctx context.Context, t Target, want Policy) (held bool, reason string, err error) {
	return m.once(ctx, m.onWaypoint(t, authzOn(t, want)))
}

// WaitAuthzOff returns when no replica of the target's waypoint enforces the policy.
func (m *Mesh) WaitAuthzOff(ctx context.Context, t Target, namespace, name string) error {
	return m.await(ctx, fmt.Sprintf("policy %s, off", name), m.offWaypoint(t, authzOff(t, namespace, name)), m.whyNot(t, nil))
}

// AuthzOff looks once whether WaitAuthzOff would return at once.
func (m *Mesh) AuthzOff(ctx context.Context, t Target, namespace, name string) (held bool, reason string, err error) {
	return m.once(ctx, m.offWaypoint(t, authzOff(t, namespace, name)))
}

// WaitStrict returns when Istio has accepted a policy for the node proxies, which
// enforce policies with a selector. A node proxy's own configuration is not looked at:
// what it enforces is for a measurement to show.
func (m *Mesh) WaitStrict(ctx context.Context, namespace, name string) error {
	nothing := func(context.Context, *proxies) (finding, error) { return finding{}, nil }
	return m.await(ctx, "policy "+name, m.acceptedByZtunnel(namespace, name), nothing)
}

// Strict looks once whether WaitStrict would return at once, and if not, why.
func (m *Mesh) Strict(ctx context.Context, namespace, name string) (held bool, reason string, err error) {
	return m.once(ctx, m.acceptedByZtunnel(namespace, name))
}

func (m *Mesh) acceptedByZtunnel(namespace, name string) question {
	return func(ctx context.Context, _ *proxies) (finding, error) {
		trouble, err := m.policyTrouble(ctx, namespace, name, "ZtunnelAccepted")
		trouble.held = err == nil && trouble.reason == ""
		return trouble, err
	}
}

type test func(*Dump) (bool, string)

func faultOn(t Target, want params.Fault) test {
	return func(d *Dump) (bool, string) { return FaultHeld(d, t.Service, want) }
}

func faultOff(t Target, path string) test {
	return func(d *Dump) (bool, string) { return FaultGone(d, t.Service, path) }
}

func authzOn(t Target, want Policy) test {
	return func(d *Dump) (bool, string) { return AuthzHeld(d, t.Service, want) }
}

func authzOff(t Target, namespace, name string) test {
	return func(d *Dump) (bool, string) { return AuthzGone(d, t.Service, namespace, name) }
}

func (m *Mesh) onWaypoint(t Target, holds test) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		return p.every(ctx, t.Service.Namespace, t.Waypoint, holds)
	}
}

// offWaypoint is content when there is no waypoint: then nothing is enforced.
func (m *Mesh) offWaypoint(t Target, gone test) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		pods, err := m.Pods(ctx, t.Service.Namespace, t.Waypoint)
		if err != nil {
			return finding{}, err
		}
		if len(pods) == 0 {
			return yes(), nil
		}
		return p.every(ctx, t.Service.Namespace, t.Waypoint, gone)
	}
}

// whyNot looks for trouble in the waypoint, and then in the object itself.
func (m *Mesh) whyNot(t Target, object func(context.Context) (finding, error)) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		found, err := p.trouble(ctx, t.Service.Namespace, t.Waypoint)
		if err != nil || found.reason != "" || object == nil {
			return found, err
		}
		return object(ctx)
	}
}

// policyTrouble says why Istio did not attach a policy: by the condition it sets on it,
// WaypointAccepted or ZtunnelAccepted. An accepted policy gives no reason.
func (m *Mesh) policyTrouble(ctx context.Context, namespace, name, accepted string) (finding, error) {
	policy, err := m.objects.Resource(authorizationPolicies()).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return no(problem.ConfigNotAttached, "there is no AuthorizationPolicy %s/%s", namespace, name), nil
	}
	if err != nil {
		return finding{}, fmt.Errorf("reading AuthorizationPolicy %s: %w", name, err)
	}
	_, selector, _ := unstructured.NestedMap(policy.Object, "spec", "selector")
	status, reason, message := condition(policy, accepted)
	switch {
	case accepted == "WaypointAccepted" && selector:
		return no(problem.ConfigNotAttached, "AuthorizationPolicy %s has a selector, and waypoints ignore policies with one: it needs targetRefs", name), nil
	case status == "":
		return no(problem.ConfigNotAttached, "Istio has not attached AuthorizationPolicy %s to anything yet", name), nil
	case status != "True":
		return no(problem.ConfigNotAttached, "Istio did not attach AuthorizationPolicy %s: %s", name, join(reason, message)), nil
	}
	return finding{}, nil
}

// virtualServiceTrouble says why a VirtualService has no effect at the waypoint. Istio
// sets no condition on one, so its spec is read the way the waypoint does: it must name
// the Service, and must not be bound to gateways only.
func (m *Mesh) virtualServiceTrouble(ctx context.Context, t Target, name string) (finding, error) {
	object, err := m.objects.Resource(virtualServices()).Namespace(t.Service.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return no(problem.ConfigNotAttached, "there is no VirtualService %s/%s", t.Service.Namespace, name), nil
	}
	if err != nil {
		return finding{}, fmt.Errorf("reading VirtualService %s: %w", name, err)
	}
	spec := node{object.Object}.get("spec")
	hosts := spec.get("hosts").strings()
	if !slices.Contains(hosts, t.Service.Host()) && !slices.Contains(hosts, t.Service.Name) {
		return no(problem.ConfigNotAttached, "VirtualService %s is for %s, not for %s", name, strings.Join(hosts, ", "), t.Service.Host()), nil
	}
	if bound := spec.get("gateways").strings(); len(bound) > 0 && !slices.Contains(bound, "mesh") {
		return no(problem.ConfigNotAttached, "VirtualService %s is bound to the gateways %s; a waypoint takes only those for the mesh", name, strings.Join(bound, ", ")), nil
	}
	return finding{}, nil
}
