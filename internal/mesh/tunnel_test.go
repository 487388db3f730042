package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"

	"ambientlab/internal/problem"
)

func TestAdminOverPortForward(t *testing.T) {
	for name, webSockets := range map[string]bool{"websocket": true, "spdy fallback": false} {
		t.Run(name, func(t *testing.T) {
			server, forwarder := startAPIServer(t, webSockets,
				map[string]string{"15000": envoyAdmin(t, "waypoint-fault")})
			admin := forwarder.Admin("default", "waypoint-1")
			for range 3 {
				d, err := admin.Dump(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if held, reason := Delays(d, appb(), fault(50, 2e9, "/headers")); !held {
					t.Error(reason)
				}
				if d.Draining != 3 {
					t.Errorf("%d draining", d.Draining)
				}
			}
			if connected, err := admin.Connected(t.Context()); !connected || err != nil {
				t.Error(connected, err)
			}
			_, err := admin.Get(t.Context(), "/nothing")
			if err == nil || !strings.Contains(err.Error(), "404") {
				t.Error(err)
			}
			want := []string{"websocket"}
			if !webSockets {
				want = append(want, "SPDY/3.1")
			}
			if got := fmt.Sprint(server.upgrades); got != fmt.Sprint(want) {
				t.Errorf("the port-forward is not reused: upgrades %v, want %v", got, want)
			}
			// The pod restarts: the next request dials again.
			server.killConnections()
			if _, err := admin.Dump(t.Context()); err != nil {
				if _, err = admin.Dump(t.Context()); err != nil {
					t.Error("after the pod restarted:", err)
				}
			}
			if err := admin.Close(); err != nil {
				t.Error(err)
			}
			if _, err := admin.Dump(t.Context()); !errors.Is(err, net.ErrClosed) {
				t.Error("closed, but:", err)
			}
		})
	}
}

func TestTunnelErrorsSayWhy(t *testing.T) {
	_, forwarder := startAPIServer(t, true, nil)
	_, err := dumpOnce(t.Context(), forwarder, "waypoint-1")
	if !problem.Is(err, problem.ProxyUnreachable) ||
		!strings.Contains(err.Error(),
			"no connection to pod default/waypoint-1 port 15000: error forwarding port 15000") {
		t.Error("refused port:", err)
	}
	_, err = dumpOnce(t.Context(), forwarder, "missing")
	if !problem.Is(err, problem.ProxyUnreachable) || !strings.Contains(err.Error(), "not found") {
		t.Error("missing pod:", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("SIGTERM"))
	if _, err = dumpOnce(ctx, forwarder, "waypoint-1"); err == nil {
		t.Error("a cancelled context gives no error")
	}
}

func TestPodPort(t *testing.T) {
	server, forwarder := startAPIServer(t, true, map[string]string{"15000": envoyAdmin(t, "waypoint")})
	addr, stop, err := forwarder.PodPort(t.Context(), "default", "waypoint-1", 15000)
	if err != nil {
		t.Fatal(err)
	}
	get := func() error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + addr + "/config_dump?include_eds")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.ReadAll(resp.Body)
		return err
	}
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			if err := get(); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	server.killConnections()
	if err := get(); err != nil {
		// The first connection after a restart may still meet the old tunnel's end.
		if err = get(); err != nil {
			t.Error("after the pod restarted:", err)
		}
	}
	stop()
	stop()
	if err := get(); err == nil {
		t.Error("the port still answers after stop")
	}
	if _, _, err := forwarder.PodPort(t.Context(), "default", "missing", 80); !problem.Is(err,
		problem.ProxyUnreachable) {
		t.Error(err)
	}
}

func TestServiceForward(t *testing.T) {
	server, forwarder := startAPIServer(t, true, map[string]string{"8080": envoyAdmin(t, "waypoint")})
	up := corev1.PodStatus{
		Phase:      corev1.PodRunning,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "gateway-istio", Labels: map[string]string{"app": "g"}}
	pod := &corev1.Pod{
		ObjectMeta: meta, Status: up,
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}},
		},
	}
	unready := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a-first", Labels: meta.Labels}}
	service := &corev1.Service{
		ObjectMeta: meta,
		Spec: corev1.ServiceSpec{Selector: meta.Labels, Ports: []corev1.ServicePort{
			{Port: 80, TargetPort: intstr.FromString("web")},
			{Port: 8080},
			{Port: 90, TargetPort: intstr.FromInt32(9090)},
		}},
	}
	forwarder.kube = fake.NewClientset([]runtime.Object{service, pod, unready}...)

	forward, err := forwarder.Service(t.Context(), "default", "gateway-istio", 80, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer forward.Stop()
	get := func() error {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + forward.Addr() + "/stats")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := get(); err != nil {
		t.Fatal(err, forward.Err())
	}
	server.killConnections()
	if err := get(); err != nil {
		if err = get(); err != nil {
			t.Error("after the pod restarted:", err, forward.Err())
		}
	}
	// A pod that was replaced is left at the first request, although the tunnel to it is still open.
	replaced := pod.DeepCopy()
	replaced.Name = "gateway-istio-2"
	forwarder.kube = fake.NewClientset([]runtime.Object{service, replaced, unready}...)
	if err := get(); err != nil {
		t.Error("after the pod was replaced:", err, forward.Err())
	}
	if last := server.paths[len(server.paths)-1]; !strings.Contains(last, "/pods/gateway-istio-2/") {
		t.Errorf("after the pod was replaced, a request went to %s", last)
	}
	forwarder.kube = fake.NewClientset([]runtime.Object{service, pod, unready}...)
	_, err = forwarder.Service(t.Context(), "default", "gateway-istio", 80, forward.Addr())
	if !problem.Is(err, problem.PortInUse) {
		t.Error("taken port:", err)
	}
	for port, want := range map[int]string{81: "has no port 81", 8080: "", 90: ""} {
		f, err := forwarder.Service(t.Context(), "default", "gateway-istio", port, "127.0.0.1:0")
		if (want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("port %d: %v", port, err)
		}
		if f != nil {
			f.Stop()
		}
	}
	forwarder.kube = fake.NewClientset(service, unready)
	_, err = forwarder.Service(t.Context(), "default", "gateway-istio", 80, "127.0.0.1:0")
	if err == nil || !strings.Contains(err.Error(), "has no ready pod (1 pods in all)") {
		t.Error(err)
	}
}

// dumpOnce reads the configuration of the Envoy in a pod.
func dumpOnce(ctx context.Context, forwarder *Forwarder, pod string) (*Dump, error) {
	admin := forwarder.Admin("default", pod)
	defer func() { _ = admin.Close() }()
	return admin.Dump(ctx)
}
