package mesh

import (
	"context"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
)

// fakeProxy serves dumps by name of the capture; what it serves can change under way.
type fakeProxy struct {
	mu           sync.Mutex
	serve        *Dump
	err          error
	disconnected bool
	draining     int
	dumps        int
	closed       bool
}

func (p *fakeProxy) Dump(context.Context) (*Dump, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dumps++
	if p.serve == nil || p.err != nil {
		return nil, p.err
	}
	d := *p.serve
	d.Draining = p.draining
	return &d, nil
}

func (p *fakeProxy) Connected(context.Context) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.disconnected, nil
}

func (p *fakeProxy) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *fakeProxy) set(d *Dump) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serve = d
}

func pod(name, gateway, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name,
			Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": gateway},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
}

// cluster is everything that a ready waypoint consists of, for a test to spoil.
type cluster struct {
	service    *corev1.Service
	deployment *appsv1.Deployment
	pods       []*corev1.Pod
	gateway    *unstructured.Unstructured
	others     []runtime.Object
	proxies    map[string]*fakeProxy
}

func object(apiVersion, kind, name string, fields map[string]any) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: fields}
	u.SetAPIVersion(apiVersion)
	u.SetKind(kind)
	u.SetNamespace("default")
	u.SetName(name)
	return u
}

func withCondition(kind, status, reason, message string) map[string]any {
	return map[string]any{"status": map[string]any{"conditions": []any{
		map[string]any{"type": kind, "status": status, "reason": reason, "message": message},
	}}}
}

func readyCluster(t *testing.T) *cluster {
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	enrolled := meta("appb")
	enrolled.Labels = map[string]string{labelUseWaypoint: "appb-waypoint"}
	c := &cluster{
		service: &corev1.Service{ObjectMeta: enrolled, Status: corev1.ServiceStatus{Conditions: []metav1.Condition{
			{
				Type: conditionBound, Status: metav1.ConditionTrue,
				Message: "Successfully attached to waypoint default/appb-waypoint. " +
					"Ingress traffic will traverse the waypoint",
			},
		}}},
		deployment: &appsv1.Deployment{
			ObjectMeta: meta("appb-waypoint"),
			Status:     appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1},
		},
		pods: []*corev1.Pod{
			pod("waypoint-1", "appb-waypoint", "10.244.2.30"),
			pod("gateway-1", "gateway", "10.244.2.40"),
		},
		gateway: object("gateway.networking.k8s.io/v1", "Gateway", "appb-waypoint",
			withCondition("Programmed", "True", "Programmed", "")),
		proxies: map[string]*fakeProxy{
			"waypoint-1": {serve: captured(t, "waypoint")},
			"gateway-1":  {serve: captured(t, "gateway")},
		},
	}
	return c
}

func (c *cluster) mesh() *Mesh {
	objects := []runtime.Object{
		c.service,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "appb-waypoint", ResourceVersion: "7",
			Labels: map[string]string{GatewayLabel: "appb-waypoint"},
		}},
	}
	if c.deployment != nil {
		objects = append(objects, c.deployment)
	}
	for _, p := range c.pods {
		objects = append(objects, p)
	}
	istio := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{
			gateways(): "GatewayList", virtualServices(): "VirtualServiceList", httpRoutes(): "HTTPRouteList",
			authorizationPolicies(): "AuthorizationPolicyList",
			peerAuthentications():   "PeerAuthenticationList",
			telemetries():           "TelemetryList",
		}, c.others...)
	if c.gateway != nil {
		// The fake would guess "gatewaies" by itself.
		if err := istio.Tracker().Create(gateways(), c.gateway, "default"); err != nil {
			panic(err)
		}
	}
	return &Mesh{
		kube: fake.NewClientset(objects...), objects: istio,
		proxy: func(_, pod string) Proxy { return c.proxies[pod] },
	}
}

func target() Target { return Target{Service: appb(), Waypoint: "appb-waypoint", Gateway: "gateway"} }

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
