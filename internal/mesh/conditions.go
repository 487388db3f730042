package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"
)

// Condition is a state of the mesh that a lesson waits for: it is in force, or it is gone. Wait waits for one, Check
// looks once.
type Condition struct {
	title string
	// look gives nil where the condition is met. explain gives a better reason than look, which costs more requests; it
	// may be nil.
	look, explain question
	// notify makes istiod look again where look has said for patience that istiod has overlooked something, and says
	// what it changed; it may be nil.
	notify   func(context.Context, *Mesh) (engine.Change, error)
	patience time.Duration
}

// question is one look at the objects and at the proxies' configuration. It gives nil where what is asked for is so.
type question func(context.Context, *proxies) (*problem.Problem, error)

// All is met when every one of the conditions is. They are looked at in their order.
func All(conditions ...Condition) Condition {
	return Condition{
		title: conditions[0].title,
		look: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			return first(ctx, p, conditions, func(c Condition) question { return c.look })
		},
		explain: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			return first(ctx, p, conditions, func(c Condition) question { return c.explain })
		},
	}
}

func first(
	ctx context.Context, p *proxies, conditions []Condition, of func(Condition) question,
) (*problem.Problem, error) {
	for _, c := range conditions {
		q := of(c)
		if q == nil {
			continue
		}
		if found, err := q(ctx, p); found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// Check looks once whether a condition is met, and if not, why.
func (m *Mesh) Check(ctx context.Context, c Condition) (met bool, reason string, err error) {
	p := m.proxies()
	defer p.close()
	found, err := c.look(ctx, p)
	if problem.Is(err, problem.ProxyUnreachable) && ctx.Err() == nil {
		// A proxy that has just been started, or is being stopped, does not hold what is asked for.
		return false, err.Error(), nil
	}
	if err != nil || found == nil {
		return err == nil, "", err
	}
	if c.explain != nil {
		if better, err := c.explain(ctx, p); err == nil && better != nil {
			found = better
		}
	}
	return false, found.Seen, nil
}

// WaypointOn is met when the target's waypoint handles its traffic: the Gateway is programmed, the Service bound to it,
// its Deployment available, every replica's configuration has the Service, and every replica of the ingress gateway
// sends the Service's requests to it. Istio's two conditions are not enough: both are True while the waypoint's only
// pod cannot start, and traffic then goes around it. The gateway's endpoints must count as ready, too: istiod (release
// 1.31) sends them when the Service or its endpoints change, not when the waypoint's do (EdsGenerator.buildEndpoints in
// pilot/pkg/xds), so that the gateway may go on answering with 503 after the waypoint's only pod is ready again. A wait
// then notifies istiod.
func WaypointOn(t Target) Condition {
	return Condition{
		title:   fmt.Sprintf("waypoint %s of %s", t.Waypoint, t.Service),
		look:    func(ctx context.Context, p *proxies) (*problem.Problem, error) { return p.waypointOn(ctx, t) },
		explain: func(ctx context.Context, p *proxies) (*problem.Problem, error) { return p.explainWaypoint(ctx, t) },
		notify: func(ctx context.Context, m *Mesh) (engine.Change, error) {
			_, err := m.Notify(ctx, t.Service.Namespace, t.Waypoint)
			return engine.Change{
				Object: "Service " + t.Service.Name, Action: engine.Update,
				Detail: "istiod did not see that its waypoint is ready; notified by a label on it and on the " +
					"waypoint's Service",
			}, errors.Join(err, m.notifyService(ctx, t.Service.Namespace, t.Service.Name))
		},
		patience: overlookedAfter,
	}
}

// seenPatience is how long istiod may take to see the pods of a waypoint that was there before: nothing else changes.
const seenPatience = 3 * time.Second

// WaypointSeen is met unless a pod of the target's waypoint is starting, or all are ready and a replica of the ingress
// gateway counts their endpoints as not ready. It is for a waypoint whose pods were restarted: see WaypointOn. Anything
// else that the waypoint lacks is left to WaypointOn.
func WaypointSeen(t Target) Condition {
	c := WaypointOn(t)
	c.title, c.explain, c.patience = fmt.Sprintf("pods of waypoint %s", t.Waypoint), nil, seenPatience
	c.look = func(ctx context.Context, p *proxies) (*problem.Problem, error) {
		pods, err := p.mesh.podsOf(ctx, t.Service.Namespace, t.Waypoint)
		if err != nil {
			return nil, err
		}
		if starting := notReady(pods); starting != nil {
			return starting, nil
		}
		found, err := p.waypointOn(ctx, t)
		if found != nil && found.ID != problem.GatewayOverlooked.ID {
			return nil, nil
		}
		return found, err
	}
	return c
}

// PodsReady is met unless one of the pods that label selectors choose in a namespace is not ready.
func PodsReady(namespace string, selectors ...string) Condition {
	return Condition{
		title: "pods of namespace " + namespace,
		look: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			for _, selector := range selectors {
				pods, err := p.mesh.kube.CoreV1().Pods(namespace).
					List(ctx, metav1.ListOptions{LabelSelector: selector})
				if err != nil {
					return nil, fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
				}
				if found := notReady(pods.Items); found != nil {
					return found, nil
				}
			}
			return nil, nil
		},
	}
}

// notReady names the first pod that is not ready and not being deleted.
func notReady(pods []corev1.Pod) *problem.Problem {
	for i := range pods {
		if pods[i].DeletionTimestamp == nil && !ready(&pods[i]) {
			return problem.New(problem.NotReady, nil, "pod %s is not ready", pods[i].Name)
		}
	}
	return nil
}

// WaypointOff is met when the target's Service is bound to no waypoint any more and the ingress gateway sends its
// requests straight to its pods.
func WaypointOff(t Target) Condition {
	return Condition{
		title: fmt.Sprintf("waypoint %s of %s, off", t.Waypoint, t.Service),
		look:  func(ctx context.Context, p *proxies) (*problem.Problem, error) { return p.waypointOff(ctx, t) },
		explain: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			return p.configurationTrouble(ctx, t.Service.Namespace, t.Waypoint, t.Gateway)
		},
	}
}

// FaultOn is met when every replica of the target's waypoint delays as wanted, on connections that were open before as
// well. virtualService is the name of the object that asks for it, in the Service's namespace.
func FaultOn(t Target, virtualService string, want params.Fault) Condition {
	return Condition{
		title: "delay of " + want.String(),
		look:  onWaypoint(t, func(d *Dump) (bool, string) { return Delays(d, t.Service, want) }),
		explain: explainOnWaypoint(t, func(ctx context.Context, m *Mesh) (*problem.Problem, error) {
			object, err := get[networkingv1.VirtualService](ctx, m, virtualServices(), t.Service.Namespace,
				virtualService)
			if err != nil {
				return nil, err
			}
			return VirtualServiceTrouble(t.Service, virtualService, object), nil
		}),
	}
}

// FaultOff is met when no replica of the target's waypoint delays requests on the paths of a delay.
func FaultOff(t Target, fault params.Fault) Condition {
	return Condition{
		title: fmt.Sprintf("delay of %s, off", fault.Paths()),
		look: offWaypoint(t,
			func(d *Dump) (bool, string) { return DelaysNone(d, t.Service, fault.Path, fault.LongerPath()) }),
		explain: explainOnWaypoint(t, nil),
	}
}

// AuthzOn is met when every replica of the target's waypoint enforces the policy as wanted, on connections that were
// open before as well.
func AuthzOn(t Target, want Policy) Condition {
	return Condition{
		title: "policy " + want.Name,
		look:  onWaypoint(t, func(d *Dump) (bool, string) { return Enforces(d, t.Service, want) }),
		explain: explainOnWaypoint(t, func(ctx context.Context, m *Mesh) (*problem.Problem, error) {
			return m.policyTrouble(ctx, want.Namespace, want.Name, WaypointAccepted)
		}),
	}
}

// AuthzOff is met when no replica of the target's waypoint enforces the policy.
func AuthzOff(t Target, namespace, name string) Condition {
	return Condition{
		title:   fmt.Sprintf("policy %s, off", name),
		look:    offWaypoint(t, func(d *Dump) (bool, string) { return DoesNotEnforce(d, t.Service, namespace, name) }),
		explain: explainOnWaypoint(t, nil),
	}
}

// StrictOn is met when Istio has accepted a policy for the node proxies, which enforce policies with a selector. A node
// proxy's own configuration is not looked at: what it enforces is for a measurement to show.
func StrictOn(namespace, name string) Condition {
	return Condition{title: "policy " + name, look: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
		return p.mesh.policyTrouble(ctx, namespace, name, ZtunnelAccepted)
	}}
}

// StrictOff is met when no ztunnel on a node with a pod of the target's Service knows the policy any more: until then
// it goes on resetting connections, although the object is gone.
func StrictOff(t Target, namespace, name string) Condition {
	return Condition{
		title: fmt.Sprintf("policy %s, off", name),
		look: func(ctx context.Context, p *proxies) (*problem.Problem, error) {
			return p.policyAtZtunnels(ctx, t.Service, namespace, name, false)
		},
	}
}

// test reads a proxy's configuration.
type test func(*Dump) (met bool, reason string)

func onWaypoint(t Target, met test) question {
	return func(ctx context.Context, p *proxies) (*problem.Problem, error) {
		return p.every(ctx, t.Service.Namespace, t.Waypoint, met)
	}
}

// offWaypoint is met where there is no waypoint: then nothing is enforced.
func offWaypoint(t Target, gone test) question {
	return func(ctx context.Context, p *proxies) (*problem.Problem, error) {
		pods, err := p.mesh.Pods(ctx, t.Service.Namespace, t.Waypoint)
		if err != nil || len(pods) == 0 {
			return nil, err
		}
		return p.every(ctx, t.Service.Namespace, t.Waypoint, gone)
	}
}

// explainOnWaypoint looks at the waypoint's proxies, and then at the object that configures them.
func explainOnWaypoint(t Target, object func(context.Context, *Mesh) (*problem.Problem, error)) question {
	return func(ctx context.Context, p *proxies) (*problem.Problem, error) {
		found, err := p.configurationTrouble(ctx, t.Service.Namespace, t.Waypoint)
		if err != nil || found != nil || object == nil {
			return found, err
		}
		return object(ctx, p.mesh)
	}
}

func (m *Mesh) policyTrouble(ctx context.Context, namespace, name, condition string) (*problem.Problem, error) {
	policy, err := get[securityv1.AuthorizationPolicy](ctx, m, authorizationPolicies(), namespace, name)
	if err != nil {
		return nil, err
	}
	return PolicyTrouble(namespace, name, policy, condition), nil
}

// waypointOn does not wait for connections that were made before: those to the waypoint were not to this Service, and
// a gateway closes those to pods that are no endpoints any more.
func (p *proxies) waypointOn(ctx context.Context, t Target) (*problem.Problem, error) {
	o, err := p.mesh.waypointObjects(ctx, t)
	if err != nil {
		return nil, err
	}
	if found := o.WaypointTroubles(); len(found) > 0 {
		return found[0], nil
	}
	namespace := t.Service.Namespace
	found, err := p.hold(ctx, namespace, t.Waypoint,
		func(d *Dump) (bool, string) { return HandlesService(d, t.Service) })
	if err != nil || found != nil || t.Gateway == "" {
		return found, err
	}
	addresses, err := p.mesh.WaypointAddresses(ctx, t)
	if err != nil {
		return nil, err
	}
	overlooked := false
	found, err = p.hold(ctx, namespace, t.Gateway, func(d *Dump) (bool, string) {
		held, reason := SendsToWaypoint(d, t.Service, addresses)
		if !held {
			overlooked, _ = SendsToWaypoint(d, t.Service, nil) // to pods that are gone
			return false, reason
		}
		overlooked, reason = countsUnready(d, t.Service)
		return !overlooked, reason
	})
	if err != nil || found == nil {
		return found, err
	}
	if overlooked {
		return problem.New(problem.GatewayOverlooked, nil, "%s; but the pods of waypoint %s are ready", found.Seen,
			t.Waypoint), nil
	}
	if cause := IngressTrouble(t.Service, o.Service); cause != nil {
		found.Seen += "; " + cause.Seen
	}
	return found, nil
}

// explainWaypoint looks at the waypoint's pods, where one is not ready, and then at the proxies.
func (p *proxies) explainWaypoint(ctx context.Context, t Target) (*problem.Problem, error) {
	o, err := p.mesh.waypointObjects(ctx, t)
	if err != nil {
		return nil, err
	}
	if o.WaypointPods, err = p.mesh.readPods(ctx, t.Service.Namespace, t.Waypoint); err != nil {
		return nil, err
	}
	if found := o.WaypointTroubles(); len(found) > 0 {
		return found[0], nil
	}
	return p.configurationTrouble(ctx, t.Service.Namespace, t.Waypoint, t.Gateway)
}

func (p *proxies) waypointOff(ctx context.Context, t Target) (*problem.Problem, error) {
	service, err := p.mesh.service(ctx, t.Service.Namespace, t.Service.Name)
	if err != nil || service == nil {
		return nil, err
	}
	if c := apimeta.FindStatusCondition(service.Status.Conditions, conditionBound); c != nil &&
		c.Status == metav1.ConditionTrue {
		return problem.New(problem.ConfigNotArrived, nil, "Service %s is still bound: %s", t.Service.Name, c.Message),
			nil
	}
	if t.Gateway == "" {
		return nil, nil
	}
	return p.every(ctx, t.Service.Namespace, t.Gateway,
		func(d *Dump) (bool, string) { return SendsToPods(d, t.Service) })
}
