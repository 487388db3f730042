package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/apply"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"
)

// The functions below say why an object has no effect, from the object alone; they are given nil for an object that
// does not exist, and give nil where nothing is wrong. Waiting, sm:status and the likely causes in a report all use
// them.

// The labels and annotations of ambient mesh that decide which way traffic takes.
const (
	labelUseWaypoint        = "istio.io/use-waypoint"
	labelIngressUseWaypoint = "istio.io/ingress-use-waypoint"
	labelDataplaneMode      = "istio.io/dataplane-mode"
	// annotationRedirection is what istio-cni writes on a pod whose traffic goes through ztunnel.
	annotationRedirection = "ambient.istio.io/redirection"
)

// WaypointAccepted and ZtunnelAccepted are the conditions that Istio sets on a policy: for those with targetRefs, and
// for those with a selector (pilot/pkg/model/policyattachment.go).
const (
	WaypointAccepted = "WaypointAccepted"
	ZtunnelAccepted  = "ZtunnelAccepted"
)

// GatewayTrouble says why a waypoint's Gateway is not programmed.
func GatewayTrouble(namespace, name string, gateway *gatewayv1.Gateway) *problem.Problem {
	if gateway == nil {
		return problem.New(problem.WaypointNotReady, nil, "Gateway %s/%s does not exist", namespace, name)
	}
	s := apply.ConditionsState(gateway.Generation, gateway.Status.Conditions,
		string(gatewayv1.GatewayConditionProgrammed))
	if !s.Ready {
		return problem.New(problem.WaypointNotReady, nil, "Gateway %s is not ready: %s", name, s.Message)
	}
	return nil
}

// DeploymentTrouble says why the Deployment that istiod makes for a waypoint, under the Gateway's name, is not
// available.
func DeploymentTrouble(namespace, name string, d *appsv1.Deployment) *problem.Problem {
	if d == nil {
		return problem.New(problem.WaypointNotReady, nil, "istiod has not made Deployment %s/%s yet", namespace, name)
	}
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		return problem.New(problem.WaypointNotReady, nil,
			"Deployment %s is scaled to zero: traffic goes around the waypoint", name)
	}
	if s := apply.DeploymentState(d); !s.Ready {
		return problem.New(problem.WaypointNotReady, nil, "Deployment %s is not available: %s", name, s.Message)
	}
	return nil
}

// BindingTrouble says why a Service is not bound to a waypoint.
func BindingTrouble(s Service, service *corev1.Service) *problem.Problem {
	if service == nil {
		return problem.New(problem.WaypointNotReady, nil, "Service %s/%s does not exist", s.Namespace, s.Name)
	}
	if service.Labels[labelUseWaypoint] == "" {
		return problem.New(problem.WaypointNotReady, nil,
			"Service %s has no label %s, so that no proxy sends its traffic to a waypoint", s.Name, labelUseWaypoint)
	}
	c := apimeta.FindStatusCondition(service.Status.Conditions, conditionBound)
	switch {
	case c == nil:
		return problem.New(problem.WaypointNotReady, nil,
			"Istio has not bound Service %s to a waypoint; its label %s is %q", s.Name, labelUseWaypoint,
			service.Labels[labelUseWaypoint])
	case c.Status != metav1.ConditionTrue:
		return problem.New(problem.WaypointNotReady, nil, "Service %s is not bound to a waypoint: %s", s.Name,
			join(c.Reason, c.Message))
	}
	return nil
}

// conditionBound is what Istio sets on a Service once it is bound to its waypoint; its message says whether ingress
// traffic is included (pilot/pkg/model/service.go, GetConditions).
const conditionBound = "istio.io/WaypointBound"

// IngressTrouble says why an ingress gateway does not send a Service's requests to its waypoint.
func IngressTrouble(s Service, service *corev1.Service) *problem.Problem {
	if service == nil {
		return nil // BindingTrouble says so
	}
	if on, err := strconv.ParseBool(service.Labels[labelIngressUseWaypoint]); err != nil || !on {
		return problem.New(problem.ConfigNotAttached, nil, "Service %s lacks the label %s=true", s.Name,
			labelIngressUseWaypoint)
	}
	return nil
}

// PodMeshTrouble says why the traffic of an application's pods does not go through ztunnel.
func PodMeshTrouble(app string, pods []corev1.Pod) *problem.Problem {
	if len(pods) == 0 {
		return problem.New(problem.NotReady, nil, "%s has no pod", app)
	}
	for _, pod := range pods {
		why := ""
		switch {
		case pod.Labels[labelDataplaneMode] == "none":
			why = "its label " + labelDataplaneMode + " is none"
		case pod.Annotations[annotationRedirection] != "enabled":
			why = "istio-cni has not set its annotation " + annotationRedirection + "=enabled"
		default:
			continue
		}
		return problem.New(problem.ConfigNotAttached, nil, "pod %s is not in the mesh: %s", pod.Name, why)
	}
	return nil
}

// VirtualServiceTrouble says why a VirtualService has no effect at the waypoint. Istio sets no condition on one, so its
// spec is read the way the waypoint does: it must name the Service, and must not be bound to gateways only.
func VirtualServiceTrouble(s Service, name string, object *networkingv1.VirtualService) *problem.Problem {
	if object == nil {
		return problem.New(problem.ConfigNotAttached, nil, "VirtualService %s/%s does not exist", s.Namespace, name)
	}
	hosts, gateways := object.Spec.GetHosts(), object.Spec.GetGateways()
	if !slices.Contains(hosts, s.Host()) && !slices.Contains(hosts, s.Name) {
		return problem.New(problem.ConfigNotAttached, nil, "VirtualService %s is for the host %s, not for %s",
			object.Name, strings.Join(hosts, ", "), s.Host())
	}
	if len(gateways) > 0 && !slices.Contains(gateways, "mesh") {
		return problem.New(problem.ConfigNotAttached, nil,
			"VirtualService %s is bound to the gateways %s; a waypoint takes only those for the mesh", object.Name,
			strings.Join(gateways, ", "))
	}
	return nil
}

// PolicyTrouble says why Istio did not attach a policy, by the condition WaypointAccepted or ZtunnelAccepted.
func PolicyTrouble(namespace, name string, policy *securityv1.AuthorizationPolicy, condition string) *problem.Problem {
	if policy == nil {
		return problem.New(problem.ConfigNotAttached, nil, "AuthorizationPolicy %s/%s does not exist", namespace, name)
	}
	if condition == WaypointAccepted && policy.Spec.GetSelector() != nil {
		return problem.New(problem.ConfigNotAttached, nil,
			"AuthorizationPolicy %s has a `selector`: waypoints ignore policies with one, and ztunnel, "+
				"which takes them, cannot see methods; it needs `targetRefs`", name)
	}
	for _, c := range policy.Status.GetConditions() {
		switch {
		case c.GetType() != condition:
		case c.GetStatus() == "True":
			return nil
		default:
			return problem.New(problem.ConfigNotAttached, nil, "Istio did not attach AuthorizationPolicy %s: %s", name,
				join(c.GetReason(), c.GetMessage()))
		}
	}
	return problem.New(problem.ConfigNotAttached, nil, "Istio has not attached AuthorizationPolicy %s to anything yet",
		name)
}

// TargetTrouble says why a policy is not about a Service.
func TargetTrouble(s Service, policy *securityv1.AuthorizationPolicy) *problem.Problem {
	targets := targetsOf(policy)
	if slices.Contains(targets, "Service/"+s.Name) {
		return nil
	}
	return problem.New(problem.ConfigNotAttached, nil, "AuthorizationPolicy %s is attached to %s, not to Service/%s",
		policy.Name, orNone(targets), s.Name)
}

func targetsOf(policy *securityv1.AuthorizationPolicy) []string {
	var targets []string
	for _, ref := range policy.Spec.GetTargetRefs() {
		targets = append(targets, ref.GetKind()+"/"+ref.GetName())
	}
	return targets
}

// DeniesAllBut says why a policy does not keep all but one identity away from the pods of an application.
func DeniesAllBut(principal, app string, policy *securityv1.AuthorizationPolicy) *problem.Problem {
	if policy == nil {
		return problem.New(problem.ConfigNotAttached, nil, "the policy does not exist")
	}
	rules := policy.Spec.GetRules()
	if policy.Spec.GetAction() == securityapi.AuthorizationPolicy_DENY &&
		policy.Spec.GetSelector().GetMatchLabels()["app"] == app &&
		len(rules) == 1 && len(rules[0].GetTo()) == 0 && len(rules[0].GetWhen()) == 0 && len(rules[0].GetFrom()) == 1 {
		if excepted := rules[0].GetFrom()[0].GetSource().
			GetNotPrincipals(); slices.Equal(excepted, []string{principal}) {
			return nil
		}
	}
	return problem.New(problem.ConfigNotAttached, nil,
		"AuthorizationPolicy %s does not deny all callers of %s except %s", policy.Name, app, principal)
}

// StrictTLSTrouble says why plain text is let in to the pods of an application.
func StrictTLSTrouble(app string, all []*securityv1.PeerAuthentication) *problem.Problem {
	for _, p := range all {
		labels := p.Spec.GetSelector().GetMatchLabels()
		if (len(labels) == 0 || labels["app"] == app) &&
			p.Spec.GetMtls().GetMode() == securityapi.PeerAuthentication_MutualTLS_STRICT {
			return nil
		}
	}
	return problem.New(problem.ConfigNotAttached, nil,
		"no PeerAuthentication asks for STRICT mutual TLS for %s, so that plain text is let in", app)
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ": ")
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "nothing"
	}
	return strings.Join(list, ", ")
}

// WaypointTroubles lists why a target's waypoint does not handle its traffic, the more basic reason first.
func (o *Objects) WaypointTroubles() []*problem.Problem {
	namespace, name := o.Target.Service.Namespace, o.Target.Waypoint
	gateway := GatewayTrouble(namespace, name, o.Waypoint)
	if gateway != nil && o.waypointOverlooked() {
		gateway = problem.New(problem.GatewayOverlooked, nil, "%s; but the pods of waypoint %s are ready",
			gateway.Seen, name)
	}
	all := []*problem.Problem{gateway}
	if o.Waypoint != nil {
		deployment := DeploymentTrouble(namespace, name, o.WaypointDeployment)
		if deployment != nil {
			if cause := o.WaypointPods.Trouble(); cause != nil {
				cause.Seen = deployment.Seen + ": " + cause.Seen
				deployment = cause
			}
		}
		all = append(all, deployment)
	}
	all = append(all, BindingTrouble(o.Target.Service, o.Service))
	return slices.DeleteFunc(all, func(p *problem.Problem) bool { return p == nil })
}

// waypointOverlooked tells whether istiod has overlooked that the waypoint's pods are ready: see overlookedState. That
// can happen after the step that creates the Gateway was done, when what was made for an earlier Gateway of that name
// is deleted late.
func (o *Objects) waypointOverlooked() bool {
	return o.Waypoint != nil && lacksAddress(o.Waypoint) &&
		DeploymentTrouble(o.Target.Service.Namespace, o.Target.Waypoint, o.WaypointDeployment) == nil
}

// DelayTrouble says where the delay that a VirtualService asks for differs from what is wanted; want is nil where no
// delay is.
func DelayTrouble(want *params.Fault, object *networkingv1.VirtualService) *problem.Problem {
	if object == nil {
		return nil // VirtualServiceTrouble says so
	}
	for _, route := range object.Spec.GetHttp() {
		delay := route.GetFault().GetDelay()
		if delay == nil {
			continue
		}
		length, percent := delay.GetFixedDelay().AsDuration(), delay.GetPercentage().GetValue()
		paths := pathsOf(route)
		text := ""
		switch {
		case want == nil:
			text = fmt.Sprintf("still asks for a delay of %s", length)
		case percent != want.Percent:
			text = fmt.Sprintf("asks for %g %%, not for %g %%", percent, want.Percent)
		case length != want.Delay:
			text = fmt.Sprintf("asks for a delay of %s, not of %s", length, want.Delay)
		case len(paths) > 0 && !slices.Contains(paths, want.Paths()):
			text = fmt.Sprintf("delays %s, not %s", strings.Join(paths, ", "), want.Paths())
		default:
			continue
		}
		return problem.New(problem.ConfigNotAttached, nil, "VirtualService %s %s", object.Name, text)
	}
	return nil
}

// pathsOf names the paths of a route as params.Fault.Paths does.
func pathsOf(route *networkingapi.HTTPRoute) []string {
	var paths []string
	for _, match := range route.GetMatch() {
		switch uri := match.GetUri().GetMatchType().(type) {
		case *networkingapi.StringMatch_Exact:
			paths = append(paths, uri.Exact)
		case *networkingapi.StringMatch_Prefix:
			paths = append(paths, uri.Prefix+"*")
		case *networkingapi.StringMatch_Regex:
			paths = append(paths, "the regular expression "+uri.Regex)
		}
	}
	return paths
}

// ZtunnelTrouble says on which node with a pod of an application no ztunnel is ready: what is sent from there or to
// there is refused, since istio-cni has redirected it to ztunnel.
func (o *Objects) ZtunnelTrouble() *problem.Problem {
	for _, app := range slices.Sorted(maps.Keys(o.AppPods)) {
		for _, pod := range o.AppPods[app] {
			onItsNode := func(z corev1.Pod) bool { return z.Spec.NodeName == pod.Spec.NodeName && ready(&z) }
			if pod.Spec.NodeName != "" && !slices.ContainsFunc(o.Ztunnels, onItsNode) {
				return problem.New(problem.ZtunnelDown, nil, "node %s, where pod %s runs, has no ready ztunnel",
					pod.Spec.NodeName, pod.Name)
			}
		}
	}
	return nil
}

// AttachedPolicies lists the policies that are attached to a target's Service.
func (o *Objects) AttachedPolicies() []*securityv1.AuthorizationPolicy {
	return slices.DeleteFunc(slices.Clone(o.Policies), func(p *securityv1.AuthorizationPolicy) bool {
		return TargetTrouble(o.Target.Service, p) != nil
	})
}

// Policy gives an AuthorizationPolicy by its name, or nil.
func (o *Objects) Policy(name string) *securityv1.AuthorizationPolicy {
	for _, p := range o.Policies {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// VirtualService gives a VirtualService by its name, or nil.
func (o *Objects) VirtualService(name string) *networkingv1.VirtualService {
	for _, v := range o.VirtualServices {
		if v.Name == name {
			return v
		}
	}
	return nil
}
