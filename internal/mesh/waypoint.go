package mesh

import (
	"context"
	"fmt"
	"strconv"

	"ambientlab/internal/problem"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// boundCondition is what Istio sets on a Service once it is bound to its waypoint.
const boundCondition = "istio.io/WaypointBound"

// WaitWaypoint returns when the target's waypoint handles its traffic: the Gateway is
// programmed, the Service bound to it, its Deployment available, every replica's
// configuration has the Service, and every replica of the ingress gateway sends the
// Service's requests to it. Neither of Istio's two conditions is enough: both are True
// while the waypoint's only pod cannot start, and traffic then goes around it.
func (m *Mesh) WaitWaypoint(ctx context.Context, t Target) error {
	return m.await(ctx, fmt.Sprintf("waypoint %s of %s", t.Waypoint, t.Service), m.waypointOn(t), m.troubleOf(t))
}

// Waypoint looks once whether WaitWaypoint would return at once, and if not, why.
func (m *Mesh) Waypoint(ctx context.Context, t Target) (held bool, reason string, err error) {
	return m.once(ctx, m.waypointOn(t))
}

// WaitWaypointOff returns when the target's Service is bound to no waypoint any more and
// the ingress gateway sends its requests straight to its pods.
func (m *Mesh) WaitWaypointOff(ctx context.Context, t Target) error {
	return m.await(ctx, fmt.Sprintf("waypoint %s of %s, off", t.Waypoint, t.Service), m.waypointOff(t), m.troubleOf(t))
}

// WaypointOff looks once whether WaitWaypointOff would return at once.
func (m *Mesh) WaypointOff(ctx context.Context, t Target) (held bool, reason string, err error) {
	return m.once(ctx, m.waypointOff(t))
}

// question is one look, with the proxies that it may ask.
type question func(context.Context, *proxies) (finding, error)

func (m *Mesh) await(ctx context.Context, what string, look, explain question) error {
	p := m.proxies()
	defer p.close()
	with := func(q question) func(context.Context) (finding, error) {
		return func(ctx context.Context) (finding, error) { return q(ctx, p) }
	}
	return await(ctx, what, with(look), with(explain))
}

func (m *Mesh) once(ctx context.Context, look question) (held bool, reason string, err error) {
	p := m.proxies()
	defer p.close()
	seen, err := look(ctx, p)
	if problem.Is(err, problem.ProxyUnreachable) && ctx.Err() == nil {
		// Not an error of the look: a proxy that has only just been started, or is about
		// to end, does not hold what is asked for.
		return false, err.Error(), nil
	}
	if err != nil {
		return false, "", err
	}
	return seen.held, seen.reason, nil
}

// troubleOf looks for trouble in the waypoint first, then in the gateway.
func (m *Mesh) troubleOf(t Target) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		for _, gateway := range []string{t.Waypoint, t.Gateway} {
			if gateway == "" {
				continue
			}
			if found, err := p.trouble(ctx, t.Service.Namespace, gateway); err != nil || found.reason != "" {
				return found, err
			}
		}
		return finding{}, nil
	}
}

func (m *Mesh) waypointOn(t Target) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		for _, look := range []func(context.Context, Target) (finding, error){m.programmed, m.available, m.bound} {
			if seen, err := look(ctx, t); err != nil || !seen.held {
				return seen, err
			}
		}
		ns := t.Service.Namespace
		seen, err := p.every(ctx, ns, t.Waypoint, func(d *Dump) (bool, string) { return ServiceHeld(d, t.Service) })
		if err != nil || !seen.held || t.Gateway == "" {
			return seen, err
		}
		addresses, err := m.waypointAddresses(ctx, t)
		if err != nil {
			return finding{}, err
		}
		seen, err = p.every(ctx, ns, t.Gateway, func(d *Dump) (bool, string) { return GatewayHeld(d, t.Service, addresses) })
		if err != nil || seen.held {
			return seen, err
		}
		return m.unlabelled(ctx, t, seen)
	}
}

func (m *Mesh) waypointOff(t Target) question {
	return func(ctx context.Context, p *proxies) (finding, error) {
		service, err := m.kube.CoreV1().Services(t.Service.Namespace).Get(ctx, t.Service.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return yes(), nil
		}
		if err != nil {
			return finding{}, fmt.Errorf("reading Service %s: %w", t.Service.Name, err)
		}
		if c := serviceCondition(service); c != nil && c.Status == metav1.ConditionTrue {
			return no(problem.ConfigNotArrived, "Service %s is still bound: %s", t.Service.Name, c.Message), nil
		}
		if t.Gateway == "" {
			return yes(), nil
		}
		return p.every(ctx, t.Service.Namespace, t.Gateway, func(d *Dump) (bool, string) { return GatewayGone(d, t.Service) })
	}
}

// programmed looks at the Gateway's condition.
func (m *Mesh) programmed(ctx context.Context, t Target) (finding, error) {
	gateway, err := m.objects.Resource(gateways()).Namespace(t.Service.Namespace).Get(ctx, t.Waypoint, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return no(problem.WaypointNotReady, "there is no Gateway %s/%s", t.Service.Namespace, t.Waypoint), nil
	}
	if err != nil {
		return finding{}, fmt.Errorf("reading Gateway %s: %w", t.Waypoint, err)
	}
	status, reason, message := condition(gateway, "Programmed")
	switch status {
	case "True":
		return yes(), nil
	case "":
		return no(problem.WaypointNotReady, "istiod has not looked at Gateway %s yet", t.Waypoint), nil
	default:
		return no(problem.WaypointNotReady, "Gateway %s is not programmed: %s", t.Waypoint, join(reason, message)), nil
	}
}

// bound looks at the Service's condition, which says of itself whether ingress traffic
// is included.
func (m *Mesh) bound(ctx context.Context, t Target) (finding, error) {
	service, err := m.kube.CoreV1().Services(t.Service.Namespace).Get(ctx, t.Service.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return no(problem.WaypointNotReady, "there is no Service %s/%s", t.Service.Namespace, t.Service.Name), nil
	}
	if err != nil {
		return finding{}, fmt.Errorf("reading Service %s: %w", t.Service.Name, err)
	}
	c := serviceCondition(service)
	switch {
	case c == nil:
		return no(problem.WaypointNotReady, "Istio has not bound Service %s to a waypoint; its label istio.io/use-waypoint is %q", t.Service.Name, service.Labels["istio.io/use-waypoint"]), nil
	case c.Status != metav1.ConditionTrue:
		return no(problem.WaypointNotReady, "Service %s is not bound to a waypoint: %s", t.Service.Name, join(c.Reason, c.Message)), nil
	}
	return yes(), nil
}

// unlabelled adds the usual cause to what was seen of a gateway that goes around the
// waypoint.
func (m *Mesh) unlabelled(ctx context.Context, t Target, seen finding) (finding, error) {
	service, err := m.kube.CoreV1().Services(t.Service.Namespace).Get(ctx, t.Service.Name, metav1.GetOptions{})
	if err != nil {
		return finding{}, fmt.Errorf("reading Service %s: %w", t.Service.Name, err)
	}
	const label = "istio.io/ingress-use-waypoint"
	if on, err := strconv.ParseBool(service.Labels[label]); err != nil || !on {
		seen.reason += fmt.Sprintf("; Service %s lacks the label %s=true", t.Service.Name, label)
	}
	return seen, nil
}

func serviceCondition(service *corev1.Service) *metav1.Condition {
	for i := range service.Status.Conditions {
		if service.Status.Conditions[i].Type == boundCondition {
			return &service.Status.Conditions[i]
		}
	}
	return nil
}

// available looks at the Deployment that istiod makes for the waypoint, under the
// Gateway's own name.
func (m *Mesh) available(ctx context.Context, t Target) (finding, error) {
	deployment, err := m.kube.AppsV1().Deployments(t.Service.Namespace).Get(ctx, t.Waypoint, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return no(problem.WaypointNotReady, "istiod has not made Deployment %s/%s yet", t.Service.Namespace, t.Waypoint), nil
	}
	if err != nil {
		return finding{}, fmt.Errorf("reading Deployment %s: %w", t.Waypoint, err)
	}
	want := int32(1)
	if deployment.Spec.Replicas != nil {
		want = *deployment.Spec.Replicas
	}
	have := deployment.Status
	if want == 0 {
		return no(problem.WaypointNotReady, "Deployment %s is scaled to zero: traffic goes around the waypoint", t.Waypoint), nil
	}
	if settled(deployment, want) {
		return yes(), nil
	}
	pods, err := m.podsOf(ctx, t.Service.Namespace, t.Waypoint)
	if err != nil {
		return finding{}, err
	}
	return no(problem.WaypointNotReady, "%s",
		join(fmt.Sprintf("Deployment %s: %d of %d available", t.Waypoint, have.AvailableReplicas, want), notRunning(pods))), nil
}

// settled tells whether a Deployment runs what is asked for now and nothing older.
func settled(d *appsv1.Deployment, want int32) bool {
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas >= want && s.AvailableReplicas >= want && s.Replicas <= want
}

// WaypointAddresses are those under which the gateway may know the waypoint, or none where it has no Service yet.
func (m *Mesh) WaypointAddresses(ctx context.Context, t Target) ([]string, error) {
	addresses, err := m.waypointAddresses(ctx, t)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return addresses, err
}

// waypointAddresses are those under which the gateway may know the waypoint: its pods'
// and its Service's.
func (m *Mesh) waypointAddresses(ctx context.Context, t Target) ([]string, error) {
	pods, err := m.podsOf(ctx, t.Service.Namespace, t.Waypoint)
	if err != nil {
		return nil, err
	}
	var addresses []string
	for _, pod := range pods {
		for _, ip := range pod.Status.PodIPs {
			addresses = append(addresses, ip.IP)
		}
	}
	service, err := m.kube.CoreV1().Services(t.Service.Namespace).Get(ctx, t.Waypoint, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Service %s: %w", t.Waypoint, err)
	}
	return append(addresses, service.Spec.ClusterIPs...), nil
}
