package mesh

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"
)

//revive:disable:line-length-limit objects and configuration in raw strings

// sabotaged are objects of a cluster with every lesson on, each with something wrong.
const sabotaged = `
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: appb-get-only, namespace: default},
   spec: {action: ALLOW, selector: {matchLabels: {app: appb}}, rules: [{to: [{operation: {methods: [GET]}}]}]},
   status: {conditions: [{type: WaypointAccepted, status: "False", reason: Invalid, message: not found}]}}
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: elsewhere, namespace: default},
   spec: {action: ALLOW, targetRefs: [{kind: Service, group: "", name: appc}]},
   status: {conditions: [{type: WaypointAccepted, status: "False", reason: TargetNotFound, message: no such service}]}}
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: attached, namespace: default},
   spec: {action: ALLOW, targetRefs: [{kind: Service, group: "", name: appb}]},
   status: {conditions: [{type: WaypointAccepted, status: "True"}]}}
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: only, namespace: default},
   spec: {action: DENY, selector: {matchLabels: {app: appb}}, rules: [{from: [{source: {notPrincipals: [lab.example/ns/default/sa/appb-waypoint]}}]}]},
   status: {conditions: [{type: ZtunnelAccepted, status: "True"}]}}
- {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: permissive, namespace: default}, spec: {mtls: {mode: PERMISSIVE}}}
- {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict-appc, namespace: default}, spec: {selector: {matchLabels: {app: appc}}, mtls: {mode: STRICT}}}
- {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: appb-delay, namespace: default},
   spec: {hosts: [appc], http: [{match: [{uri: {exact: /headers}}], fault: {delay: {percentage: {value: 50}, fixedDelay: 2s}}}, {route: [{destination: {host: appb}}]}]}}
`

func TestTroublesOfSabotagedObjects(t *testing.T) {
	c := readyCluster(t)
	var list []map[string]any
	if err := yaml.Unmarshal([]byte(sabotaged), &list); err != nil {
		t.Fatal(err)
	}
	for _, object := range list {
		c.others = append(c.others, &unstructured.Unstructured{Object: object})
	}
	c.service.Labels = map[string]string{labelUseWaypoint: "appb-waypoint", labelIngressUseWaypoint: "no"}
	c.gateway = object("gateway.networking.k8s.io/v1", "Gateway", "appb-waypoint",
		withCondition("Programmed", "False", "AddressNotAssigned", "no address"))
	c.deployment.Status.AvailableReplicas = 0
	outside := pod("appa-1", "", "10.244.1.1")
	outside.Labels = map[string]string{"app": "appa", labelDataplaneMode: "none"}
	unmarked := pod("appb-1", "", "10.244.1.2")
	unmarked.Labels = map[string]string{"app": "appb"}
	c.pods = append(c.pods, outside, unmarked)
	c.pods[0].Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"},
	}}
	o, err := c.mesh().Objects(t.Context(), target())
	if err != nil {
		t.Fatal(err)
	}
	var waypoint []string
	for _, p := range o.WaypointTroubles() {
		waypoint = append(waypoint, p.Seen)
	}
	if got, want := strings.Join(waypoint, "\n"),
		"Gateway appb-waypoint is not ready: Programmed is False: AddressNotAssigned: no address\n"+
			"Deployment appb-waypoint is not available: 0 of 1 replicas are available: "+
			"pod waypoint-1 cannot be scheduled: 0/3 nodes are available"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	wanted := params.DefaultFault()
	other := wanted
	other.Percent = 30
	slower := wanted
	slower.Delay *= 2
	exact := wanted
	exact.Exact = true
	for want, got := range map[string]*problem.Problem{
		"pod appa-1 is not in the mesh: its label istio.io/dataplane-mode is none":                                 PodMeshTrouble("appa", o.AppPods["appa"]),
		"pod appb-1 is not in the mesh: istio-cni has not set its annotation ambient.istio.io/redirection=enabled": PodMeshTrouble("appb", o.AppPods["appb"]),
		"appc has no pod": PodMeshTrouble("appc", o.AppPods["appc"]),
		"Service appb lacks the label istio.io/ingress-use-waypoint=true": IngressTrouble(appb(), o.Service),
		"AuthorizationPolicy appb-get-only has a `selector`: waypoints ignore policies with one, and ztunnel, " +
			"which takes them, cannot see methods; it needs `targetRefs`": PolicyTrouble("default", "appb-get-only",
			o.Policy("appb-get-only"), WaypointAccepted),
		"Istio did not attach AuthorizationPolicy elsewhere: TargetNotFound: no such service": PolicyTrouble(
			"default", "elsewhere", o.Policy("elsewhere"), WaypointAccepted),
		"AuthorizationPolicy elsewhere is attached to Service/appc, not to Service/appb": TargetTrouble(appb(),
			o.Policy("elsewhere")),
		"AuthorizationPolicy appb-get-only is attached to nothing, not to Service/appb": TargetTrouble(appb(),
			o.Policy("appb-get-only")),
		"Istio has not attached AuthorizationPolicy only to anything yet": PolicyTrouble(
			"default", "only", o.Policy("attached"), ZtunnelAccepted),
		"no PeerAuthentication asks for STRICT mutual TLS for appb, so that plain text is let in": StrictTLSTrouble(
			"appb", o.PeerAuthentications),
		"VirtualService appb-delay is for the host appc, not for appb.default.svc.cluster.local": VirtualServiceTrouble(
			appb(), "appb-delay", o.VirtualService("appb-delay")),
		"VirtualService appb-delay delays /headers, not /headers*": DelayTrouble(&wanted,
			o.VirtualService("appb-delay")),
		"VirtualService appb-delay asks for 50 %, not for 30 %": DelayTrouble(&other,
			o.VirtualService("appb-delay")),
		"VirtualService appb-delay asks for a delay of 2s, not of 4s": DelayTrouble(&slower,
			o.VirtualService("appb-delay")),
		"VirtualService appb-delay still asks for a delay of 2s": DelayTrouble(nil, o.VirtualService("appb-delay")),
		"AuthorizationPolicy only does not deny all callers of appb except td/sa/w": DeniesAllBut("td/sa/w", "appb",
			o.Policy("only")),
	} {
		if got == nil || got.Seen != want {
			t.Errorf("got %v, want %q", got, want)
		}
	}
	for name, none := range map[string]*problem.Problem{
		"the delay as it is":   DelayTrouble(&exact, o.VirtualService("appb-delay")),
		"an attached policy":   PolicyTrouble("default", "attached", o.Policy("attached"), WaypointAccepted),
		"a policy for appb":    TargetTrouble(appb(), o.Policy("attached")),
		"a policy for ztunnel": PolicyTrouble("default", "only", o.Policy("only"), ZtunnelAccepted),
		"STRICT for appc":      StrictTLSTrouble("appc", o.PeerAuthentications),
		"all but the waypoint": DeniesAllBut("lab.example/ns/default/sa/appb-waypoint", "appb", o.Policy("only")),
	} {
		if none != nil {
			t.Errorf("%s: %v", name, none)
		}
	}
	if attached := o.AttachedPolicies(); len(attached) != 1 || attached[0].Name != "attached" {
		t.Errorf("attached: %v", attached)
	}
}

// Without any of the objects there is no error; an API server that fails is one.
func TestObjectsThatAreMissingOrUnreadable(t *testing.T) {
	c := readyCluster(t)
	c.gateway, c.deployment = nil, nil
	c.service.ObjectMeta = metav1.ObjectMeta{Namespace: "default", Name: "another"}
	m := c.mesh()
	o, err := m.Objects(t.Context(), target())
	if err != nil || o.Waypoint != nil || o.WaypointDeployment != nil || o.Service != nil || o.Policy("x") != nil ||
		o.VirtualService("x") != nil {
		t.Errorf("%+v %v", o, err)
	}
	if troubles := o.WaypointTroubles(); len(troubles) != 2 ||
		troubles[0].Seen != "Gateway default/appb-waypoint does not exist" ||
		troubles[1].Seen != "Service default/appb does not exist" {
		t.Errorf("%v", troubles)
	}
	broken := errors.New("broken")
	m.objects.(*dynamicfake.FakeDynamicClient).PrependReactor("*", "*",
		func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, broken })
	if _, err := m.Objects(t.Context(), target()); !errors.Is(err, broken) {
		t.Error(err)
	}
}
