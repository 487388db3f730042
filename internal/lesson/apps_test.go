package lesson

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/session"
)

// What is printed is what answers: the gateway's address, else the published one, else sm:dashboard.
func TestAccessLines(t *testing.T) {
	const (
		address   = "172.18.255.200"
		published = "127.0.0.1:40002"
		remote    = "192.0.2.1:40002"
		atAddress = "try: curl -H 'Host: appb.opssec.in' http://172.18.255.200/headers"
		atPort    = "try: curl -H 'Host: appb.opssec.in' http://127.0.0.1:40002/headers"
		atRemote  = "try: curl -H 'Host: appb.opssec.in' http://192.0.2.1:40002/headers"
		browser   = "in a browser: http://appb.localhost:40002/headers"
		dashboard = "try: mage sm:dashboard, and in another terminal " +
			"curl -H 'Host: appb.opssec.in' http://127.0.0.1:8080/headers"
	)
	for name, tc := range map[string]struct {
		address, published string
		answering          []string
		want               []string
	}{
		"both":                       {address, published, []string{address, published}, []string{atAddress, browser}},
		"the address alone":          {address, published, []string{address}, []string{atAddress}},
		"the published port alone":   {address, published, []string{published}, []string{atPort, browser}},
		"a port that is not ours":    {address, remote, []string{remote}, []string{atRemote}},
		"neither":                    {address, published, nil, []string{dashboard}},
		"nothing is published":       {address, "", []string{address}, []string{atAddress}},
		"there is no address":        {"", published, []string{"", published}, []string{atPort, browser}},
		"there is nothing to ask":    {"", "", []string{""}, []string{dashboard}},
		"an address does not answer": {address, "", nil, []string{dashboard}},
	} {
		answers := func(_ context.Context, asked string) bool { return slices.Contains(tc.answering, asked) }
		if got := accessLines(t.Context(), tc.address, tc.published, answers); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

// A request goes to the address with appb's host name, and only the gateway's answer counts.
func TestGatewayAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		server string
		want   bool
	}{
		"appb":                          {http.StatusOK, "", true},
		"the gateway without a route":   {http.StatusNotFound, "istio-envoy", true},
		"a policy":                      {http.StatusForbidden, "istio-envoy", true},
		"another server":                {http.StatusNotFound, "nginx", false},
		"another server that redirects": {http.StatusFound, "nginx", false},
	} {
		host := ""
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			host = r.Host + r.URL.Path
			w.Header().Set("Server", tc.server)
			w.WriteHeader(tc.status)
		}))
		if got := gatewayAnswers(t.Context(), server.Listener.Addr().String(), "/status/200"); got != tc.want {
			t.Errorf("%s: got %v", name, got)
		}
		if host != names.Host+"/status/200" {
			t.Errorf("%s: asked for %s", name, host)
		}
		server.Close()
	}
}

// TestPortNotYetServed: before kube-proxy serves a published port, Docker accepts connections to it and closes them.
func TestPortNotYetServed(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if connection, err := listener.Accept(); err == nil {
			_ = connection.Close()
		}
		_ = http.Serve(listener, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}()
	defer listener.Close()
	if !gatewayAnswers(t.Context(), listener.Addr().String(), "/status/200") {
		t.Error("the gateway is asked only once")
	}
}

// TestBlackhole: a server that accepts the connection and never answers, as a proxy of a virtual machine does for an
// address that leads nowhere, is given up. The time is only there for a run that would never end.
func TestBlackhole(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	asked := make(chan string, 1)
	go func() {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		request, _ := io.ReadAll(connection) // until the client gives up
		_ = connection.Close()
		asked <- string(request)
	}()
	answered := make(chan bool, 1)
	go func() { answered <- gatewayAnswers(t.Context(), listener.Addr().String(), "/status/200") }()
	select {
	case got := <-answered:
		if got {
			t.Error("a server that says nothing counts as the gateway")
		}
	case <-time.After(time.Minute):
		t.Fatal("the request was not given up")
	}
	if request := <-asked; !strings.Contains(request, "Host: "+names.Host) {
		t.Errorf("the server received %q", request)
	}
}

// The gateway's Service has the type that its cluster can serve, and the node port that its cluster publishes.
func TestGatewayService(t *testing.T) {
	for name, tc := range map[string]struct {
		config      session.Config
		serviceType string
		parameters  bool
	}{
		"kind":                           {session.Config{LoadBalancer: true, NodePort: 30042}, "", true},
		"kind without load balancer":     {session.Config{NodePort: 30042}, "NodePort", true},
		"existing with a load balancer":  {session.Config{LoadBalancer: true}, "", false},
		"existing without load balancer": {session.Config{}, "ClusterIP", false},
	} {
		objects, err := Apps().Objects(tc.config)
		if err != nil {
			t.Fatal(err)
		}
		service := ""
		for _, object := range objects {
			switch {
			case object.GetKind() == "Gateway":
				if got := object.GetAnnotations()["networking.istio.io/service-type"]; got != tc.serviceType {
					t.Errorf("%s: the Service has type %q, want %q", name, got, tc.serviceType)
				}
				parameters, found, _ := unstructured.NestedString(
					object.Object,
					"spec",
					"infrastructure",
					"parametersRef",
					"name",
				)
				if found != tc.parameters || found && parameters != "gateway-parameters" {
					t.Errorf("%s: the Gateway's parameters are %q", name, parameters)
				}
			case object.GetName() == "gateway-parameters":
				service, _, _ = unstructured.NestedString(object.Object, "data", "service")
			}
		}
		if strings.Contains(service, "nodePort: 30042") != tc.parameters {
			t.Errorf("%s: the parameters of the Service are %q", name, service)
		}
	}
}
