package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"ambientlab/internal/problem"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/proxy"
	tunnelproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer speaks the port-forward protocol as an API server with its kubelets does.
// Every pod has the ports that are served; other ports are refused as kubelet does.
type apiServer struct {
	*httptest.Server
	ports map[string]string // pod's port to the address behind it

	mu       sync.Mutex
	upgrades []string
	live     []httpstream.Connection
}

// startAPIServer starts one; webSockets says whether it takes the newer way.
func startAPIServer(t *testing.T, webSockets bool, ports map[string]string) (*apiServer, *Forwarder) {
	s := &apiServer{ports: ports}
	kubelet := httptest.NewServer(http.HandlerFunc(s.spdy))
	t.Cleanup(kubelet.Close)
	location, err := url.Parse(kubelet.URL)
	if err != nil {
		t.Fatal(err)
	}
	overWebSocket := tunnelproxy.NewTunnelingHandler(proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, false, true, responder{t}))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/pods/missing/") {
			http.Error(w, `pods "missing" not found`, http.StatusNotFound)
			return
		}
		way := r.Header.Get("Upgrade")
		s.mu.Lock()
		s.upgrades = append(s.upgrades, way)
		s.mu.Unlock()
		if way != "websocket" {
			s.spdy(w, r)
			return
		}
		if !webSockets {
			http.Error(w, "unable to upgrade: unsupported", http.StatusBadRequest)
			return
		}
		overWebSocket.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	t.Cleanup(s.killConnections)
	forwarder, err := NewForwarder(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s, forwarder
}

type responder struct{ t *testing.T }

func (r responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	r.t.Error(err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// killConnections is what a pod's end does to its port-forwards.
func (s *apiServer) killConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.live {
		_ = c.Close()
	}
	s.live = nil
}

func (s *apiServer) spdy(w http.ResponseWriter, r *http.Request) {
	if _, err := httpstream.Handshake(r, w, []string{"portforward.k8s.io"}); err != nil {
		return
	}
	streams := make(chan httpstream.Stream, 16)
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		streams <- stream
		return nil
	})
	if conn == nil {
		return
	}
	s.mu.Lock()
	s.live = append(s.live, conn)
	s.mu.Unlock()
	waiting := map[string]httpstream.Stream{}
	for {
		select {
		case <-conn.CloseChan():
			return
		case stream := <-streams:
			id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				waiting[id] = stream
				continue
			}
			go s.carry(stream, waiting[id])
		}
	}
}

func (s *apiServer) carry(data, errs httpstream.Stream) {
	defer func() { _ = errs.Close() }()
	defer func() { _ = data.Close() }()
	port := data.Headers().Get(corev1.PortHeader)
	address, known := s.ports[port]
	if !known {
		_, _ = fmt.Fprintf(errs, "error forwarding port %s to pod x: connect: connection refused", port)
		return
	}
	backend, err := net.Dial("tcp", address)
	if err != nil {
		_, _ = fmt.Fprint(errs, err)
		return
	}
	defer func() { _ = backend.Close() }()
	go func() {
		_, _ = io.Copy(backend, data)
		_ = backend.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(data, backend)
}

// envoyAdmin answers as the admin interface of a captured proxy.
func envoyAdmin(t *testing.T, dump string) string {
	data := capturedBytes(t, dump)
	mux := http.NewServeMux()
	mux.HandleFunc("/config_dump", func(w http.ResponseWriter, r *http.Request) {
		if _, eds := r.URL.Query()["include_eds"]; !eds {
			http.Error(w, "endpoints were not asked for", http.StatusBadRequest)
			return
		}
		_, _ = w.Write(data)
	})
	mux.HandleFunc("/stats", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "control_plane.connected_state: 1\n")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAdminOverPortForward(t *testing.T) {
	for name, webSockets := range map[string]bool{"websocket": true, "spdy fallback": false} {
		t.Run(name, func(t *testing.T) {
			server, forwarder := startAPIServer(t, webSockets, map[string]string{"15000": envoyAdmin(t, "waypoint-fault")})
			admin := forwarder.Admin("default", "waypoint-1")
			for range 3 {
				d, err := admin.Dump(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if held, reason := FaultHeld(d, appb(), fault(50, 2e9, "/headers")); !held {
					t.Error(reason)
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
	_, err := forwarder.ConfigDump(t.Context(), "default", "waypoint-1")
	if !problem.Is(err, problem.ProxyUnreachable) || !strings.Contains(err.Error(), "no connection to pod default/waypoint-1 port 15000: error forwarding port 15000") {
		t.Error("refused port:", err)
	}
	_, err = forwarder.ConfigDump(t.Context(), "default", "missing")
	if !problem.Is(err, problem.ProxyUnreachable) || !strings.Contains(err.Error(), "not found") {
		t.Error("missing pod:", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("SIGTERM"))
	if _, err = forwarder.ConfigDump(ctx, "default", "waypoint-1"); err == nil {
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
	if _, _, err := forwarder.PodPort(t.Context(), "default", "missing", 80); !problem.Is(err, problem.ProxyUnreachable) {
		t.Error(err)
	}
}

func TestServiceForward(t *testing.T) {
	server, forwarder := startAPIServer(t, true, map[string]string{"8080": envoyAdmin(t, "waypoint")})
	up := corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "gateway-istio", Labels: map[string]string{"app": "g"}}
	pod := &corev1.Pod{ObjectMeta: meta, Status: up, Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}}}}
	unready := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a-first", Labels: meta.Labels}}
	service := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Selector: meta.Labels, Ports: []corev1.ServicePort{
		{Port: 80, TargetPort: intstr.FromString("web")}, {Port: 8080}, {Port: 90, TargetPort: intstr.FromInt32(9090)},
	}}}
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
