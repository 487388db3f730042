package lab

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// found is a cluster that exists and whose API server is the test's.
type found struct {
	cluster.Provider
	server string
}

func (found) Traits() cluster.Traits { return cluster.Traits{Name: "kind", Owned: true} }

func (found) Inspect(context.Context) (cluster.Info, error) {
	return cluster.Info{Provider: "kind", Name: "test", State: cluster.Ready, Exists: true, Packets: true}, nil
}

func (f found) RESTConfig(context.Context) (*rest.Config, error) {
	return &rest.Config{Host: f.server}, nil
}

// serving is an API server that knows the Services given, each with one pod that is ready or not.
func serving(t *testing.T, ready map[string]bool) string {
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, code int, object any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		if err := json.NewEncoder(w).Encode(object); err != nil {
			t.Error(err)
		}
	}
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/services/{name}", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if _, installed := ready[name]; !installed {
			answer(w, http.StatusNotFound,
				metav1.Status{
					TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: 404,
					Reason: metav1.StatusReasonNotFound,
				})
			return
		}
		service := corev1.Service{
			TypeMeta:   metav1.TypeMeta{Kind: "Service", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: name},
		}
		service.Spec.Selector = map[string]string{"app": name}
		for _, port := range []int32{80, 3000, 9090, 20001} {
			service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Port: port})
		}
		answer(w, http.StatusOK, service)
	})
	mux.HandleFunc("GET /api/v1/namespaces/kube-system/configmaps/ambientlab-record",
		func(w http.ResponseWriter, _ *http.Request) {
			answer(w, http.StatusOK,
				corev1.ConfigMap{
					TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
					Data:     map[string]string{"lab": "ambient"},
				})
		})
	mux.HandleFunc("GET /api/v1/namespaces/{namespace}/pods", func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Query().Get("labelSelector"), "app=")
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name + "-1"}}
		if ready[name] {
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		answer(w, http.StatusOK,
			corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{pod}})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// dashboardOn runs sm:dashboard until it fails, or until it holds its forwards: then each address that it printed must
// answer. It gives the rows that were printed, the header included.
func dashboardOn(t *testing.T, server, open string) (rows []string, err error) {
	t.Helper()
	b := newBed(t)
	b.UseProvider(found{server: server})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Dashboard(open)(ctx, b.Env) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(b.talk.String(), "Ctrl-C ends") {
		select {
		case err := <-ended:
			return strings.Split(strings.TrimSpace(b.out.String()), "\n"), err
		case <-tick.C:
		}
	}
	rows = strings.Split(strings.TrimSpace(b.out.String()), "\n")
	for _, row := range rows[1:] {
		if _, address, forwarded := strings.Cut(row, "http://"); forwarded {
			address, _, _ = strings.Cut(address, "/")
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Errorf("%q is printed, and nothing listens there: %v", row, err)
				continue
			}
			_ = conn.Close()
		}
	}
	cancel()
	return rows, <-ended
}

// TestDashboardGoesOnWithoutOne is about a Kiali that does not get ready: the others, and the gateway, are forwarded.
func TestDashboardGoesOnWithoutOne(t *testing.T) {
	rows, err := dashboardOn(t, serving(t, map[string]bool{"gateway-istio": true, "kiali": false, "prometheus": true}),
		"")
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 4 {
		t.Fatalf("rows %q, want the header, the gateway, kiali and prometheus", rows)
	}
	for i, words := range [][]string{
		// The way in comes first.
		1: {"gateway", "http://127.0.0.1:", "/headers", "Host: appb.opssec.in", "http://appb.localhost:"},
		2: {"kiali", "not forwarded: Service istio-system/kiali has no ready pod"},
		3: {"prometheus", "http://127.0.0.1:", "/query?g0.tab=1&g0.expr=sum+by"},
	} {
		says(t, "the table", rows[i], words...)
	}
}

// The addresses lead to pages that show something, and where a substitute has no pages, to a query.
func TestDashboardAddresses(t *testing.T) {
	path := func(name string, substitutes session.Substitutes) string {
		for _, d := range dashboards("shop", substitutes) {
			if d.name == name {
				return d.path + " " + d.note
			}
		}
		t.Fatalf("no dashboard %s", name)
		return ""
	}
	built := session.Substitutes{
		"docker.io/prom/prometheus:v3.10.0":     "Prometheus without pages",
		"docker.io/jaegertracing/jaeger:2.17.0": "Jaeger without pages",
	}
	says(t, "Kiali's address", path("kiali", nil), "namespaces=shop", "waypoints=true", "duration=")
	says(t, "Prometheus' address", path("prometheus", built), "/api/v1/query?query=", "no web pages")
	says(t, "Jaeger's address", path("jaeger", nil), "/jaeger/search?service=appb-waypoint.shop")
	says(t, "Jaeger's address", path("jaeger", built), "/jaeger/api/traces?service=appb-waypoint.shop", "no web pages")
}

func TestDashboardFails(t *testing.T) {
	for name, tc := range map[string]struct {
		ready map[string]bool
		open  string
		kind  problem.Kind
		says  string
	}{
		"nothing is ready": {
			map[string]bool{"kiali": false, "grafana": false},
			"", problem.ProxyUnreachable,
			"nothing could be forwarded",
		},
		"nothing is installed": {nil, "", problem.NotReady, "neither the gateway nor any dashboard is installed"},
		"the one to open": {
			map[string]bool{"gateway-istio": true, "kiali": false},
			"kiali",
			problem.ProxyUnreachable, "kiali cannot be opened",
		},
		"the one to open, missing": {
			map[string]bool{"gateway-istio": true},
			"kiali", problem.NotReady,
			"kiali is not installed",
		},
		"a word that is none": {
			map[string]bool{"gateway-istio": true},
			"kial", problem.SettingInvalid,
			"accepted: kiali",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := dashboardOn(t, serving(t, tc.ready), tc.open)
			if !problem.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %s: %s", err, tc.kind.ID, tc.says)
			}
		})
	}
}
