package mesh

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/proxy"
	tunnelproxy "k8s.io/apiserver/pkg/util/proxy"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// apiServer speaks the port-forward protocol as an API server with its kubelets does. Every pod has the ports that are
// served; other ports are refused as kubelet does.
type apiServer struct {
	*httptest.Server
	ports map[string]string // pod's port to the address behind it

	mu       sync.Mutex
	upgrades []string
	paths    []string
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
	overWebSocket := tunnelproxy.NewTunnelingHandler(
		proxy.NewUpgradeAwareHandler(location, http.DefaultTransport, false, true, responder{t}))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/pods/missing/") {
			http.Error(w, `pods "missing" not found`, http.StatusNotFound)
			return
		}
		way := r.Header.Get("Upgrade")
		s.mu.Lock()
		s.upgrades = append(s.upgrades, way)
		s.paths = append(s.paths, r.URL.Path)
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
	mux.HandleFunc("/stats", func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Query().Get("filter"), "draining") {
			_, _ = io.WriteString(w,
				"listener_manager.total_filter_chains_draining: 2\nlistener_manager.total_listeners_draining: 1\n")
			return
		}
		// As Istio's proxies do by default: without control_plane.connected_state.
		_, _ = io.WriteString(w, "cluster.xds-grpc.upstream_rq_active: 1\n")
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
