package probe

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// podsOnly is a cluster of pods, by selector.
type podsOnly struct {
	pods    map[string][]traffic.Pod
	err     error
	started []traffic.PodSpec
	removed []string
}

func (c *podsOnly) Pods(_ context.Context, _, selector string) ([]traffic.Pod, error) {
	return c.pods[selector], c.err
}

func (c *podsOnly) Exec(context.Context, string, string, string, []string, io.Writer, io.Writer) (int, error) {
	return 0, errBroken
}

func (c *podsOnly) PodPort(context.Context, string, string, int) (string, func(), error) {
	return "", nil, errBroken
}

func (c *podsOnly) Logs(context.Context, string, string, string, time.Time) (io.ReadCloser, error) {
	return nil, errBroken
}

func (c *podsOnly) StartPod(_ context.Context, spec traffic.PodSpec) (traffic.Pod, error) {
	c.started = append(c.started, spec)
	return traffic.Pod{Name: spec.Name}, c.err
}

func (c *podsOnly) RemovePod(_ context.Context, _, name string) error {
	c.removed = append(c.removed, name)
	return c.err
}

func meshedPods() map[string][]traffic.Pod {
	in := map[string]string{redirected: "enabled"}
	return map[string][]traffic.Pod{
		"app=appa": {{Name: "appa-1", Ready: true, Annotations: in}}, "app=appb": {{Name: "appb-1", Ready: true, IP: "10.0.0.9", Annotations: in}},
		gatewayLabel + "=appb-waypoint": {{Name: "appb-waypoint-1", Ready: true}}, "app=ztunnel": {{Name: "ztunnel-1"}},
	}
}

func TestCallersOfACluster(t *testing.T) {
	c := &podsOnly{pods: meshedPods()}
	k := newWorld(c, nil, DefaultNames("default"))
	for who, want := range map[Caller]string{Appa: "http://appb:8000", AppaDirect: "http://10.0.0.9:8080", Outsider: "http://appb:8000", Unmeshed: "http://appb:8000"} {
		sender, err := k.Caller(t.Context(), who)
		if err != nil || sender.(traffic.InPod).URL != want {
			t.Errorf("%s: %+v %v", who, sender, err)
		}
	}
	if sender, err := k.Caller(t.Context(), Gateway); err != nil || sender.(traffic.Gateway).Host != "appb.opssec.in" {
		t.Errorf("%+v %v", sender, err)
	}
	if _, err := k.Caller(t.Context(), "nobody"); err == nil {
		t.Error("nobody sends")
	}
	// A short-lived caller is started once and removed at the end.
	if _, err := k.Caller(t.Context(), Outsider); err != nil || len(c.started) != 2 {
		t.Errorf("started %+v, %v", c.started, err)
	}
	for _, spec := range c.started {
		outside := spec.Labels["istio.io/dataplane-mode"] == "none"
		if outside != (spec.Name == "lab-unmeshed") || (spec.ServiceAccount == "outsider") != (spec.Name == "lab-outsider") {
			t.Errorf("%+v", spec)
		}
	}
	if err := k.Close(t.Context()); err != nil || len(c.removed) != 2 {
		t.Errorf("removed %q, %v", c.removed, err)
	}
	if err := k.Close(t.Context()); err != nil || len(c.removed) != 2 {
		t.Errorf("removed %q twice, %v", c.removed, err)
	}
	c.err = errBroken
	if _, err := k.Caller(t.Context(), Outsider); !errors.Is(err, errBroken) {
		t.Errorf("a pod that does not start: %v", err)
	}
	if err := k.Close(t.Context()); !errors.Is(err, errBroken) || !slices.Contains(c.removed[2:], "lab-outsider") {
		t.Errorf("what did not start is not removed: %q %v", c.removed, err)
	}
	if _, err := k.Caller(t.Context(), AppaDirect); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := k.Lives(t.Context()); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if _, err := k.Counters(t.Context()); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	if err := k.Crossings(t.Context(), time.Now(), func(observe.Crossing) bool { return true }); !errors.Is(err, errBroken) {
		t.Error(err)
	}
	empty := newWorld(&podsOnly{}, nil, DefaultNames("default"))
	if _, err := empty.Caller(t.Context(), AppaDirect); err == nil || !strings.Contains(err.Error(), "appb has no pod") {
		t.Error(err)
	}
	if _, err := NewKubernetes(&rest.Config{Host: "::bad::"}, nil, DefaultNames("x")); err == nil {
		t.Error("a bad host went well")
	}
	lives, err := newWorld(&podsOnly{pods: meshedPods()}, nil, DefaultNames("default")).Lives(t.Context())
	if err != nil || len(lives) != 4 || !slices.Contains(lives, "ztunnel-1//0") {
		t.Errorf("%q %v", lives, err)
	}
}

// objects as they are in a cluster with every lesson on and everything sabotaged that can be.
const objects = `
- {apiVersion: v1, kind: Service, metadata: {name: appb, namespace: default, labels: {istio.io/use-waypoint: appb-waypoint}},
   status: {conditions: [{type: istio.io/WaypointBound, status: "True", message: attached}]}}
- {apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: appb-waypoint, namespace: default},
   status: {conditions: [{type: Programmed, status: "False", message: no address}]}}
- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: appb-get-only, namespace: default},
   spec: {action: ALLOW, selector: {matchLabels: {app: appb}}, targetRefs: [{kind: Service, name: appb}], rules: [{to: [{operation: {methods: [GET]}}]}]},
   status: {conditions: [{type: WaypointAccepted, status: "False", message: not found}]}}
- {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: default}, spec: {mtls: {mode: STRICT}}}
- {apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: appb-delay, namespace: default},
   spec: {hosts: [appc], http: [{match: [{uri: {exact: /headers}}], fault: {delay: {percentage: {value: 50}, fixedDelay: 2s}}}, {route: [{destination: {host: appb}}]}]}}
`

func TestFactsOfACluster(t *testing.T) {
	var list []map[string]any
	if err := yaml.Unmarshal([]byte(objects), &list); err != nil {
		t.Fatal(err)
	}
	kinds := map[schema.GroupVersionResource]string{
		{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"}: "AuthorizationPolicyList",
		{Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"}:   "PeerAuthenticationList",
		{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}:     "VirtualServiceList",
	}
	cluster := &podsOnly{pods: meshedPods()}
	cluster.pods["app=appa"][0].Labels = map[string]string{"istio.io/dataplane-mode": "none"}
	cluster.pods[gatewayLabel+"=appb-waypoint"][0].Ready = false
	client := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)
	resources := map[string]string{"Service": "services", "Gateway": "gateways", "AuthorizationPolicy": "authorizationpolicies", "PeerAuthentication": "peerauthentications", "VirtualService": "virtualservices"}
	for _, o := range list {
		object := &unstructured.Unstructured{Object: o}
		at := object.GroupVersionKind().GroupVersion().WithResource(resources[object.GetKind()])
		if _, err := client.Resource(at).Namespace("default").Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := newWorld(cluster, client, DefaultNames("default")).Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.UseWaypoint != "appb-waypoint" || f.IngressUseWaypoint != "" || f.WaypointBound != "attached" || !f.WaypointExists || f.Programmed || f.ProgrammedMessage != "no address" || !f.StrictTLS {
		t.Errorf("%+v", f)
	}
	if f.WaypointReady != 0 || f.WaypointWaits != "appb-waypoint-1 is not ready" || f.AppaMeshed || !strings.Contains(f.AppaWhyNot, "none") || !f.AppbMeshed {
		t.Errorf("%+v", f)
	}
	if p := f.Policies[0]; !p.Selector || !p.Layer7 || p.Message != "not found" || p.Targets[0] != "Service/appb" {
		t.Errorf("%+v", p)
	}
	if r := f.Routes[0]; r.Hosts[0] != "appc" || r.Percent != 50 || r.Delay != "2s" || r.Paths[0] != "/headers" {
		t.Errorf("%+v", r)
	}
	// Without any of them there are no facts, which is no error.
	bare := newWorld(&podsOnly{}, fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds), DefaultNames("default"))
	if f, err := bare.Facts(t.Context()); err != nil || f.WaypointExists || f.AppaMeshed || f.AppaWhyNot != "it has no pod" {
		t.Errorf("%+v %v", f, err)
	}
	client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, errBroken })
	if _, err := newWorld(&podsOnly{err: errBroken}, client, DefaultNames("default")).Facts(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}
