package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

const threeNodes = `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
- role: worker
  extraMounts:
  - {hostPath: /srv, containerPath: /srv}
- role: worker
`

// fakeKind is kind's library over an engine in memory.
type fakeKind struct {
	f *fixture
	// create replaces the default, which makes all nodes and succeeds.
	create func() error
	calls  int
}

func (k *fakeKind) Create(string, ...kindcluster.CreateOption) error {
	k.calls++
	if k.create != nil {
		return k.create()
	}
	k.f.addNodes(0, true)
	return nil
}

func (k *fakeKind) KubeConfig(name string, _ bool) (string, error) {
	if len(k.f.engine.Containers()) == 0 {
		return "", errors.New("could not locate any control plane nodes")
	}
	key := "kind-" + name
	return fmt.Sprintf(
		`{"apiVersion":"v1","kind":"Config","current-context":%[1]q,"contexts":[{"name":%[1]q,`+
			`"context":{"cluster":%[1]q,"user":%[1]q}}],"clusters":[{"name":%[1]q,`+
			`"cluster":{"server":"https://127.0.0.1:40001"}}],"users":[{"name":%[1]q,"user":{"token":"secret"}}]}`,
		key,
	), nil
}

func (k *fakeKind) CollectLogs(string, string) error { return nil }

type fixture struct {
	*testing.T
	engine     *dockertest.Engine
	lib        *fakeKind
	kind       *Kind
	kubeconfig string
	notReady   string
	readyErr   error
}

const minesOnly = `{"apiVersion":"v1","kind":"Config","current-context":"mine","contexts":[{"name":"mine",` +
	`"context":{"cluster":"mine","user":"mine"}}],"clusters":[{"name":"mine",` +
	`"cluster":{"server":"https://192.0.2.1"}}],"users":[{"name":"mine","user":{"token":"x"}}]}`

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, kubeconfig: filepath.Join(t.TempDir(), "config")}
	if err := os.WriteFile(f.kubeconfig, []byte(minesOnly), 0o644); err != nil {
		t.Fatal(err)
	}
	f.engine = &dockertest.Engine{
		Images:   []string{"kindest/node:test"},
		Networks: map[string][]network.IPAMConfig{"kind": {{Subnet: netip.MustParsePrefix("172.18.0.0/16")}}},
	}
	f.lib = &fakeKind{f: f}
	f.kind = NewKind(KindOptions{
		Name: "ambient", Config: []byte(threeNodes), NodeImage: "kindest/node:test", Kubeconfig: f.kubeconfig,
		Docker: f.engine, LockDir: t.TempDir(), Network: "kind",
	})
	f.kind.library = func(*progressLog) library { return f.lib }
	f.kind.lookPath = func(name string) (string, error) { return "/usr/bin/" + name, nil }
	f.kind.after = func(time.Duration) <-chan time.Time {
		c := make(chan time.Time)
		close(c)
		return c
	}
	f.kind.connect = func(context.Context, string) error { return nil }
	f.kind.greet = func(context.Context, string, []byte) error { return nil }
	f.kind.admits = func(context.Context, *rest.Config) error { return nil }
	f.kind.look = func(context.Context, *rest.Config) (string, string, error) { return "v1.36.3", f.notReady, nil }
	f.kind.ready = func(context.Context, *rest.Config, int) error { return f.readyErr }
	return f
}

// addNodes puts the cluster's containers in, with the lab's mark or without it.
func (f *fixture) addNodes(slot int, marked bool) {
	for i, name := range []string{"ambient-control-plane", "ambient-worker", "ambient-worker2"} {
		f.addNode(name, i+2, slot, marked)
	}
}

func (f *fixture) addNode(name string, ip, slot int, marked bool) {
	role := node.Worker
	if strings.Contains(name, "control-plane") {
		role = node.ControlPlane
	}
	c := dockertest.Container{
		Name: name, Network: "kind", IP: fmt.Sprintf("172.18.0.%d", ip), Mounts: []string{"/lib/modules", "/var"},
		Labels: map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: role},
	}
	if marked {
		c.Mounts = append(c.Mounts, node.Mark{Lab: "ambient", Slot: slot}.MountPoint())
	}
	f.engine.Add(c)
}

func (f *fixture) state(want State) Info {
	f.Helper()
	info, err := f.kind.Inspect(f.Context())
	if err != nil || info.State != want {
		f.Errorf("state is %q (%s), %v; want %q", info.State, info.Message, err, want)
	}
	return info
}

func (f *fixture) context() (current string, names []string) {
	f.Helper()
	cfg, err := clientcmd.LoadFromFile(f.kubeconfig)
	if err != nil {
		f.Fatal(err)
	}
	for name := range cfg.Contexts {
		names = append(names, name)
	}
	slices.Sort(names)
	return cfg.CurrentContext, names
}

// untouched: no container of the cluster is there, and the kubeconfig is as it was.
func (f *fixture) untouched() {
	f.Helper()
	if left := f.engine.Containers(); len(left) != 0 {
		f.Errorf("containers left: %v", left)
	}
	if raw, err := os.ReadFile(f.kubeconfig); err != nil || string(raw) != minesOnly {
		f.Errorf("kubeconfig was changed: %s, %v", raw, err)
	}
}

func TestCreateInspectDelete(t *testing.T) {
	f := newFixture(t)
	f.state(Absent)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	info := f.state(Ready)
	if !info.Owned || !info.Exists || !info.Packets || info.Server != "https://127.0.0.1:40001" ||
		info.Version != "v1.36.3" ||
		len(info.Nodes) != 3 {
		t.Errorf("%+v", info)
	}
	if current, names := f.context(); current != "kind-ambient" || len(names) != 2 {
		t.Errorf("kubeconfig: current %s of %v", current, names)
	}
	if stat, err := os.Stat(f.kubeconfig); err != nil || stat.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig's mode: %v, %v", stat.Mode(), err)
	}
	if err := f.kind.Create(t.Context()); err != nil || f.lib.calls != 1 {
		t.Errorf("second create: %v, %d calls of kind", err, f.lib.calls)
	}
	if err := f.kind.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.state(Absent)
	if current, names := f.context(); current != "" || !slices.Equal(names, []string{"mine"}) {
		t.Errorf("kubeconfig after delete: current %q of %v", current, names)
	}
	if err := f.kind.Delete(t.Context()); err != nil {
		t.Errorf("second delete: %v", err)
	}
}

func TestForeignClusterIsLeftAlone(t *testing.T) {
	for _, marks := range []string{"none", "another lab's", "on one node only"} {
		t.Run(marks, func(t *testing.T) {
			f := newFixture(t)
			switch marks {
			case "none":
				f.addNodes(0, false)
			case "another lab's":
				f.engine.Add(
					dockertest.Container{
						Name:   "x",
						Labels: map[string]string{node.ClusterLabel: "ambient"},
						Mounts: []string{"/etc/ambientlab/other/slot-0"},
					},
				)
			default:
				f.addNode("ambient-control-plane", 2, 0, true)
				f.addNode("ambient-worker", 3, 0, false)
			}
			before := f.engine.Containers()
			f.state(Foreign)
			for _, act := range []func(context.Context) error{f.kind.Create, f.kind.Delete} {
				err := act(t.Context())
				if !problem.Is(err, problem.ClusterForeign) ||
					!strings.Contains(strings.Join(problem.All(err)[0].Advice, " "), "SM_CLUSTER") {
					t.Errorf("got %v", err)
				}
			}
			if after := f.engine.Containers(); !slices.Equal(before, after) || f.lib.calls != 0 {
				t.Errorf("before %v, after %v, kind called %d times", before, after, f.lib.calls)
			}
		})
	}
}

func TestHalfCreatedIsMadeAnew(t *testing.T) {
	f := newFixture(t)
	f.addNode("ambient-control-plane", 2, 0, true)
	f.addNode("ambient-worker", 3, 0, true)
	f.engine.Add(
		dockertest.Container{
			Name:   "ambient-external-load-balancer",
			Labels: map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.LoadBalancer},
		},
	)
	f.state(Partial)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.state(Ready)
	if got := len(f.engine.Removed()); got != 3 {
		t.Errorf("%d containers were removed first, want 3", got)
	}
}

func TestReviveAndRelink(t *testing.T) {
	f := newFixture(t)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.kubeconfig, []byte(minesOnly), 0o600); err != nil {
		t.Fatal(err)
	}
	f.state(Unlinked)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if current, names := f.context(); current != "mine" || len(names) != 2 {
		t.Errorf("healed kubeconfig: current %s of %v; the user's choice is to be kept", current, names)
	}
	f.notReady = "node ambient-worker: KubeletNotReady: cni plugin not initialized"
	f.state(NotReady)
	f.readyErr = problem.New(problem.NotReady, nil, "%s", f.notReady)
	if err := f.kind.Create(t.Context()); !problem.Is(err, problem.NotReady) || len(f.engine.Containers()) != 3 {
		t.Errorf("a cluster that was complete is not removed for not being ready: %v, %v", err, f.engine.Containers())
	}
}

func TestStoppedIsStarted(t *testing.T) {
	f := newFixture(t)
	f.engine.Add(dockertest.Container{
		Name: "ambient-control-plane", Stopped: true, Files: []string{"/etc/ambientlab/complete"},
		Labels: map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.ControlPlane},
		Mounts: []string{node.Mark{Lab: "ambient"}.MountPoint()},
	})
	f.state(Stopped)
	if err := f.kind.Create(t.Context()); err != nil || f.lib.calls != 0 {
		t.Errorf("%v, %d calls of kind", err, f.lib.calls)
	}
	if info := f.state(Ready); !strings.Contains(info.Message, "0 worker(s), while the settings ask for 1 and 2") {
		t.Errorf("the difference to the settings is to be said: %q", info.Message)
	}
}

func TestInterruptedCreateLeavesNothing(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupt")
	f.lib.create = func() error {
		f.addNode("ambient-control-plane", 2, 0, true)
		cancel(why)
		// kind goes on until it notices that its nodes are gone, and a docker command that was under way still makes
		// its container.
		for !slices.Contains(f.engine.Removed(), "ambient-control-plane") {
			<-f.kind.after(0)
		}
		f.addNode("ambient-worker", 3, 0, true)
		return errors.New("exec failed")
	}
	err := f.kind.Create(ctx)
	if !errors.Is(err, why) {
		t.Errorf("got %v, want the reason of the interruption", err)
	}
	f.untouched()
	if got := f.engine.Removed(); !slices.Equal(got, []string{"ambient-control-plane", "ambient-worker"}) {
		t.Errorf("removed %v", got)
	}
}

func TestCtrlCReachesKindFirst(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupt")
	f.lib.create = func() error {
		f.addNode("ambient-control-plane", 2, 0, true)
		return errors.New("docker run: exit status 130")
	}
	soon := f.kind.after
	f.kind.after = func(d time.Duration) <-chan time.Time {
		if d == signalDelay {
			cancel(why)
			return nil
		}
		return soon(d)
	}
	if err := f.kind.Create(ctx); !errors.Is(err, why) || problem.Is(err, problem.ClusterCreateFailed) {
		t.Errorf("got %v, want the interruption", err)
	}
	f.untouched()
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	t.Run("kind fails", func(t *testing.T) {
		f := newFixture(t)
		f.lib.create = func() error {
			f.addNodes(0, true)
			return errors.New("Bind for 127.0.0.1:6443 failed: port is already allocated")
		}
		if err := f.kind.Create(t.Context()); !problem.Is(err, problem.PortInUse) {
			t.Errorf("got %v", err)
		}
		f.untouched()
	})
	t.Run("a worker never gets ready", func(t *testing.T) {
		f := newFixture(t)
		f.readyErr = problem.New(problem.NotReady, nil, "node ambient-worker: NetworkPluginNotReady")
		if err := f.kind.Create(t.Context()); !problem.Is(err, problem.NotReady) {
			t.Errorf("got %v", err)
		}
		f.untouched()
	})
	t.Run("no docker command", func(t *testing.T) {
		f := newFixture(t)
		f.kind.lookPath = func(string) (string, error) { return "", errors.New("not found") }
		if err := f.kind.Create(t.Context()); !problem.Is(err, problem.ToolMissing) ||
			!strings.Contains(err.Error(), "docker command") {
			t.Errorf("got %v", err)
		}
		f.untouched()
	})
	t.Run("no node image", func(t *testing.T) {
		f := newFixture(t)
		f.engine.Images = nil
		err := f.kind.Create(t.Context())
		if !problem.Is(err, problem.RegistryUnreachable) || !strings.Contains(err.Error(), "kindest/node:test") ||
			f.lib.calls != 0 {
			t.Errorf("got %v, kind called %d times", err, f.lib.calls)
		}
		f.untouched()
	})
	t.Run("the node image is pulled", func(t *testing.T) {
		f := newFixture(t)
		f.engine.Images, f.engine.Registry = nil, []string{"kindest/node:test"}
		if err := f.kind.Create(t.Context()); err != nil {
			t.Error(err)
		}
	})
	t.Run("a configuration that is not one", func(t *testing.T) {
		f := newFixture(t)
		f.kind.opts.Config = []byte("nodes: 3")
		if err := f.kind.Create(t.Context()); !problem.Is(err, problem.SettingInvalid) {
			t.Errorf("got %v", err)
		}
		f.untouched()
	})
}

func TestTwoRunsWaitForEachOther(t *testing.T) {
	f := newFixture(t)
	unlock, err := f.kind.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.kind.Create(cancelled); !errors.Is(err, context.Canceled) ||
		!strings.Contains(err.Error(), "another run") {
		t.Errorf("got %v", err)
	}
	created := make(chan error, 1)
	go func() { created <- f.kind.Create(t.Context()) }()
	unlock()
	if err := <-created; err != nil {
		t.Error(err)
	}
}

func TestMarkInConfiguration(t *testing.T) {
	out, err := withMark([]byte(threeNodes), node.Mark{Lab: "ambient", Slot: 2})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(out), "containerPath: /etc/ambientlab/ambient/slot-2"); got != 3 {
		t.Errorf("%d marks, want one on each of 3 nodes:\n%s", got, out)
	}
	if !strings.Contains(string(out), "containerPath: /srv") {
		t.Errorf("the user's mount is gone:\n%s", out)
	}
	if out, err = withMark(nil, node.Mark{Lab: "x"}); err != nil || strings.Count(string(out), "slot-0") != 1 {
		t.Errorf("empty configuration: %s, %v", out, err)
	}
	for _, bad := range []string{"nodes: [1]", "- a", "{"} {
		if _, err := withMark([]byte(bad), node.Mark{Lab: "x"}); !problem.Is(err, problem.SettingInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestSlotIsRecordedInTheMark(t *testing.T) {
	f := newFixture(t)
	f.engine.Add(dockertest.Container{
		Name: "other-control-plane", Network: "kind", IP: "172.18.0.9",
		Labels: map[string]string{node.ClusterLabel: "other", node.RoleLabel: node.ControlPlane},
		Mounts: []string{node.Mark{Lab: "other", Slot: 0}.MountPoint()},
	})
	slot, err := lb.Choose(t.Context(), f.engine, "kind")
	if err != nil || slot != 1 {
		t.Errorf("slot %d, %v; want the one next to the other lab's", slot, err)
	}
}

// slowRemoval is an engine that removes a container only when told, as one that is still being created.
type slowRemoval struct {
	*dockertest.Engine
	begun chan string
	end   map[string]chan bool
}

func (e *slowRemoval) ContainerRemove(
	ctx context.Context, id string, o client.ContainerRemoveOptions,
) (client.ContainerRemoveResult, error) {
	e.begun <- id
	<-e.end[id]
	return e.Engine.ContainerRemove(ctx, id, o)
}

// TestRemovalsDoNotWaitForEachOther: while one container takes long to remove, those that appear later are removed.
func TestRemovalsDoNotWaitForEachOther(t *testing.T) {
	f := newFixture(t)
	f.addNode("ambient-control-plane", 2, 0, true)
	slow := &slowRemoval{
		Engine: f.engine,
		begun:  make(chan string, 100),
		end:    map[string]chan bool{"ambient-control-plane": make(chan bool), "ambient-worker": make(chan bool)},
	}
	f.kind.opts.Docker = slow
	deleted := make(chan error)
	go func() { deleted <- f.kind.Delete(t.Context()) }()
	<-slow.begun
	f.addNode("ambient-worker", 3, 0, true)
	if second := <-slow.begun; second != "ambient-worker" {
		t.Errorf("the second removal is that of %s", second)
	}
	close(slow.end["ambient-worker"])
	close(slow.end["ambient-control-plane"])
	if err := <-deleted; err != nil {
		t.Error(err)
	}
	f.untouched()
}

// TestFindAsksNoAPIServer: sm:delete does not wait for an API server that does not answer.
func TestFindAsksNoAPIServer(t *testing.T) {
	f := newFixture(t)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.kind.look = func(context.Context, *rest.Config) (string, string, error) {
		t.Error("the API server was asked")
		return "", "", nil
	}
	f.kind.greet = func(context.Context, string, []byte) error {
		t.Error("the API server was called")
		return nil
	}
	if info, err := Find(t.Context(), f.kind); err != nil || !info.Exists || !info.Owned {
		t.Errorf("%+v, %v", info, err)
	}
	if err := f.kind.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if info, err := Find(t.Context(), f.kind); err != nil || info.Exists || info.State != Absent {
		t.Errorf("%+v, %v", info, err)
	}
}

// TestKubeconfigFromControlPlane: what is read through Docker's API is what kind makes of the same credentials; where
// it cannot be read, kind is asked.
func TestKubeconfigFromControlPlane(t *testing.T) {
	const admin = `{"apiVersion":"v1","kind":"Config","current-context":"kubernetes-admin@ambient","contexts":[` +
		`{"name":"kubernetes-admin@ambient","context":{"cluster":"ambient","user":"kubernetes-admin"}}],` +
		`"clusters":[{"name":` +
		`"ambient","cluster":{"server":"https://ambient-control-plane:6443"}}],"users":[{"name":"kubernetes-admin",` +
		`"user":{"token":"of-admin"}}]}`
	for name, tc := range map[string]struct {
		content map[string]string
		token   string
	}{
		"read":        {map[string]string{adminConfig: admin}, "of-admin"},
		"not there":   {nil, "secret"},
		"not a table": {map[string]string{adminConfig: "}"}, "secret"},
		"two of it":   {map[string]string{adminConfig: `{"apiVersion":"v1","kind":"Config"}`}, "secret"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.engine.Add(dockertest.Container{
				Name: "ambient-control-plane", Network: "kind", IP: "172.18.0.2", Published: "127.0.0.1:40001",
				Labels:   map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.ControlPlane},
				Contents: tc.content,
			})
			config, err := f.kind.RESTConfig(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if config.Host != "https://127.0.0.1:40001" || config.BearerToken != tc.token {
				t.Errorf("host %s, token %s; want token %s", config.Host, config.BearerToken, tc.token)
			}
			entries, _, err := f.kind.entries(t.Context())
			if err != nil || entries.CurrentContext != "kind-ambient" || entries.Contexts["kind-ambient"] == nil {
				t.Errorf("entries %+v, %v", entries, err)
			}
		})
	}
}

// TestMilestones: a create reports that its nodes take images, and that its API server answers, while kind is at work.
func TestMilestones(t *testing.T) {
	f := newFixture(t)
	f.engine.Exec = func(string, []string) (string, string, int) { return "", "", 0 }
	f.kind.after = func(time.Duration) <-chan time.Time { return time.After(time.Millisecond) }
	reached := make(chan string, 2)
	f.lib.create = func() error {
		f.addNodes(0, true)
		f.engine.Write("ambient-control-plane", adminConfig)
		for range 2 {
			<-reached
		}
		return nil
	}
	early := func(milestone string) engine.Step {
		return engine.Step{ID: milestone, Needs: []string{"cluster/" + milestone}, Do: func(context.Context) error {
			reached <- milestone
			return nil
		}}
	}
	plan := engine.Plan{Name: "p", Steps: []engine.Step{
		Step(f.kind, "cluster", 0), early(MilestoneNodes), early(MilestoneAPI),
	}}
	if _, err := (&engine.Engine{}).Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
}

// TestAwaitNodes: it waits for the API server first, and then for as many nodes as the configuration has.
func TestAwaitNodes(t *testing.T) {
	f := newFixture(t)
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.engine.Write("ambient-control-plane", adminConfig)
	tries, wanted := 0, 0
	f.kind.admits = func(context.Context, *rest.Config) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	f.kind.ready = func(_ context.Context, _ *rest.Config, want int) error {
		wanted = want
		return nil
	}
	f.kind.after = func(time.Duration) <-chan time.Time { return time.After(time.Millisecond) }
	var asked sync.Map
	f.engine.Exec = func(container string, command []string) (string, string, int) {
		if strings.Contains(command[len(command)-1], "kubeproxy_sync_proxy_rules") {
			if _, before := asked.LoadOrStore(container, true); before {
				t.Errorf("%s is asked twice", container)
			}
		}
		return "", "", 1 // it does not say so in time
	}
	var waiting errgroup.Group
	for range 3 { // as steps do side by side
		waiting.Go(func() error { return f.kind.AwaitNodes(t.Context()) })
	}
	if err := waiting.Wait(); err != nil || tries != 3 || wanted != 3 {
		t.Errorf("%v after %d tries, for %d nodes", err, tries, wanted)
	}
	for _, name := range []string{"ambient-control-plane", "ambient-worker", "ambient-worker2"} {
		if _, ok := asked.Load(name); !ok {
			t.Errorf("the kube-proxy of %s is not waited for", name)
		}
	}
}

// TestAwaitNodesWithoutKubeProxy: where the configuration has no kube-proxy, none is waited for.
func TestAwaitNodesWithoutKubeProxy(t *testing.T) {
	f := newFixture(t)
	f.kind.opts.Config = []byte(threeNodes + "\nnetworking: {kubeProxyMode: none}\n")
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.engine.Write("ambient-control-plane", adminConfig)
	f.engine.Exec = func(container string, command []string) (string, string, int) {
		if strings.Contains(strings.Join(command, " "), "kubeproxy") {
			t.Errorf("%s is asked for its kube-proxy", container)
		}
		return "", "", 0
	}
	if err := f.kind.AwaitNodes(t.Context()); err != nil {
		t.Error(err)
	}
}
