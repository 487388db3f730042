package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/ui"
)

// engineInMemory is a Docker engine for labs: what dockertest has, and what only labs ask.
type engineInMemory struct{ *dockertest.Engine }

func (engineInMemory) ServerVersion(context.Context, client.ServerVersionOptions) (client.ServerVersionResult, error) {
	return client.ServerVersionResult{Os: "linux", Arch: "amd64"}, nil
}

func (engineInMemory) ImageLoad(context.Context, io.Reader, ...client.ImageLoadOption) (client.ImageLoadResult, error) {
	return nil, fmt.Errorf("this engine loads nothing")
}

func (engineInMemory) DistributionInspect(context.Context, string, client.DistributionInspectOptions) (client.DistributionInspectResult, error) {
	return client.DistributionInspectResult{}, fmt.Errorf("this engine has no registry")
}

// newEngine has the network of kind, and the node containers given.
func newEngine(nodes ...dockertest.Container) engineInMemory {
	engine := &dockertest.Engine{Networks: map[string][]network.IPAMConfig{"kind": {{Subnet: netip.MustParsePrefix("172.18.0.0/16")}}}}
	for _, n := range nodes {
		engine.Add(n)
	}
	return engineInMemory{engine}
}

// nodeContainer is a node container of a kind cluster, with more mounts where the lab made it.
func nodeContainer(cluster, name, role, ip string, mounts ...string) dockertest.Container {
	return dockertest.Container{
		Name: name, Network: "kind", IP: ip, Mounts: mounts,
		Labels: map[string]string{node.ClusterLabel: cluster, node.RoleLabel: role},
	}
}

// desk is a lab in memory: what it prints, and what it is asked.
type desk struct {
	*Lab
	out, talk *buffer
}

// newDesk makes a lab on settings, each NAME=value, with an engine or, with none, with a Docker that nobody finds.
func newDesk(t *testing.T, engine *engineInMemory, settings ...string) *desk {
	t.Helper()
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	values := map[string]string{"KUBECONFIG": filepath.Join(t.TempDir(), "config")}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		values[name] = value
	}
	getenv := func(name string) string { return values[name] }
	loaded, err := Load(getenv)
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{out: &buffer{}, talk: &buffer{}}
	if d.Lab, err = New(loaded, d.out, ui.New(ui.Plain, d.talk, getenv)); err != nil {
		t.Fatal(err)
	}
	if engine != nil {
		d.docker = *engine
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// apiServer is as much of an API server as a lab asks before it touches anything; what would touch something it
// refuses and remembers.
type apiServer struct {
	*httptest.Server
	version string
	nodes   []string // name=address; an address that ends in ! is that of a node which is not ready
	record  map[string]string
	denied  bool
	beyond  func() // called when more is asked than it knows

	mu      sync.Mutex
	touched []string
}

func newAPIServer(t *testing.T) *apiServer {
	a := &apiServer{version: "v1.36.3", nodes: []string{"n1=172.18.0.2", "n2=172.18.0.3"}}
	a.Server = httptest.NewServer(http.HandlerFunc(a.answer))
	t.Cleanup(a.Close)
	return a
}

// kubeconfig writes one whose current context, called mine, leads to the server.
func (a *apiServer) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"mine","contexts":[{"name":"mine","context":{"cluster":"mine"}}],"clusters":[{"name":"mine","cluster":{"server":%q}}]}`, a.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (a *apiServer) answer(w http.ResponseWriter, r *http.Request) {
	say := func(code int, object map[string]any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(object)
	}
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews"):
		say(http.StatusCreated, map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "status": map[string]any{"allowed": !a.denied}})
	case r.Method != http.MethodGet:
		a.mu.Lock()
		a.touched = append(a.touched, r.Method+" "+r.URL.Path)
		a.mu.Unlock()
		say(http.StatusForbidden, status("Forbidden", http.StatusForbidden))
	case r.URL.Path == "/version":
		say(http.StatusOK, map[string]any{"gitVersion": a.version})
	case r.URL.Path == "/api/v1/nodes":
		say(http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "NodeList", "items": a.nodeItems()})
	case r.URL.Path == "/apis/apps/v1/deployments":
		say(http.StatusOK, map[string]any{"apiVersion": "apps/v1", "kind": "DeploymentList", "items": []any{}})
	case r.URL.Path == "/api/v1/namespaces/kube-system/configmaps/cilium-config":
		say(http.StatusNotFound, status("NotFound", http.StatusNotFound))
	case strings.HasSuffix(r.URL.Path, "/configmaps/"+recordName) && a.record != nil:
		say(http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": recordName}, "data": a.record})
	default:
		if a.beyond != nil && !strings.Contains(r.URL.Path, "/configmaps/") {
			a.beyond()
		}
		say(http.StatusNotFound, status("NotFound", http.StatusNotFound))
	}
}

func (a *apiServer) nodeItems() []any {
	items := []any{}
	for _, n := range a.nodes {
		name, address, _ := strings.Cut(n, "=")
		address, unready := strings.CutSuffix(address, "!")
		ready := map[string]any{"type": "Ready", "status": "True"}
		if unready {
			ready = map[string]any{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "cni plugin not initialized"}
		}
		items = append(items, map[string]any{"metadata": map[string]any{"name": name}, "status": map[string]any{
			"addresses": []any{map[string]any{"type": "InternalIP", "address": address}}, "conditions": []any{ready},
		}})
	}
	return items
}

// untouched wants that nothing was asked for that would change the cluster.
func (a *apiServer) untouched(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.touched) > 0 {
		t.Errorf("touched: %v", a.touched)
	}
}

func status(reason string, code int) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code}
}
