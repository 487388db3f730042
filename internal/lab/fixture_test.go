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

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/node"
	"ambientlab/internal/session"
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

func (engineInMemory) DistributionInspect(
	context.Context, string, client.DistributionInspectOptions,
) (client.DistributionInspectResult, error) {
	return client.DistributionInspectResult{}, fmt.Errorf("this engine has no registry")
}

// newEngine has the network of kind, and the node containers given.
func newEngine(nodes ...dockertest.Container) engineInMemory {
	engine := &dockertest.Engine{
		Networks: map[string][]network.IPAMConfig{"kind": {{Subnet: netip.MustParsePrefix("172.18.0.0/16")}}},
	}
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

// bed is an Env of a test's own: what it prints, what it says, and the targets with few words.
type bed struct {
	*session.Env
	out, talk *buffer
}

func (b bed) Install(ctx context.Context) error { return Install(ctx, b.Env) }
func (b bed) Status(ctx context.Context) error  { return Status(ctx, b.Env) }
func (b bed) Delete(ctx context.Context) error  { return Delete(ctx, b.Env) }
func (b bed) Doctor(ctx context.Context) error  { return Doctor(ctx, b.Env) }

func (b bed) Apps(ctx context.Context, off bool) error { return Lesson(lesson.Apps(), off)(ctx, b.Env) }

func (b bed) Waypoint(ctx context.Context, off bool) error {
	return Lesson(lesson.Waypoint(), off)(ctx, b.Env)
}

func (b bed) Fault(ctx context.Context, fault params.Fault, off bool) error {
	return Lesson(lesson.Fault(fault), off)(ctx, b.Env)
}

func (b bed) Authz(ctx context.Context, without string, strict, off bool) error {
	return Lesson(lesson.Authz(without, strict), off)(ctx, b.Env)
}

func (b bed) Verify(ctx context.Context, out string) error     { return Verify(out)(ctx, b.Env) }
func (b bed) Plan(ctx context.Context, of string) error        { return Plan(of, "")(ctx, b.Env) }
func (b bed) ProxyConfig(ctx context.Context, of string) error { return ProxyConfig(of)(ctx, b.Env) }

// open opens a session on a lab that may be absent.
func (b bed) open(t *testing.T) *session.Session {
	t.Helper()
	s, err := session.Open(t.Context(), b.Env, session.MayBeAbsent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newBed makes an Env on settings, each NAME=value.
func newBed(t *testing.T, settings ...string) bed {
	t.Helper()
	values := map[string]string{"KUBECONFIG": filepath.Join(t.TempDir(), "config")}
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		values[name] = value
	}
	getenv := func(name string) string { return values[name] }
	loaded, err := session.Load(getenv)
	if err != nil {
		t.Fatal(err)
	}
	b := bed{out: &buffer{}, talk: &buffer{}}
	if b.Env, err = session.New(loaded, b.out, ui.New(ui.Plain, b.talk, getenv)); err != nil {
		t.Fatal(err)
	}
	b.StateDir = filepath.Join(t.TempDir(), "state")
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// newDesk makes a bed with an engine or, with none, with a Docker that does not answer.
func newDesk(t *testing.T, engine *engineInMemory, settings ...string) bed {
	t.Helper()
	t.Setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	b := newBed(t, settings...)
	if engine != nil {
		b.UseDocker(*engine)
	}
	return b
}

// absent is a provider of a cluster that does not exist.
type absent struct {
	cluster.Provider
	traits cluster.Traits
}

func (a absent) Traits() cluster.Traits { return a.traits }

func (absent) Inspect(context.Context) (cluster.Info, error) {
	return cluster.Info{State: cluster.Absent}, nil
}

// apiServer is as much of an API server as a lab asks before it touches anything; what would touch something it refuses
// and remembers.
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
	text := fmt.Sprintf(
		`{"apiVersion":"v1","kind":"Config","current-context":"mine","contexts":[{"name":"mine",`+
			`"context":{"cluster":"mine"}}],"clusters":[{"name":"mine","cluster":{"server":%q}}]}`, a.URL)
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
		say(http.StatusCreated,
			map[string]any{
				"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
				"status": map[string]any{"allowed": !a.denied},
			})
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
	case strings.HasSuffix(r.URL.Path, "/configmaps/ambientlab-record") && a.record != nil:
		say(http.StatusOK, map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "ambientlab-record"}, "data": a.record,
		})
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
			ready = map[string]any{
				"type": "Ready", "status": "False", "reason": "KubeletNotReady",
				"message": "cni plugin not initialized",
			}
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
