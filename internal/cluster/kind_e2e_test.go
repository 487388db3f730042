//go:build e2e || e2efull

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
)

// The e2e tests need a Docker engine and a node image in it, named by SM_E2E_NODE_IMAGE or the source-built one.
const config = `
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
nodes:
- role: control-plane
- role: worker
- role: worker
`

type bed struct {
	*testing.T
	docker     *client.Client
	endpoint   docker.Endpoint
	kubeconfig string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	api, endpoint, err := docker.New(docker.SystemEnv())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	b := &bed{T: t, docker: api, endpoint: endpoint, kubeconfig: filepath.Join(t.TempDir(), "config")}
	mine := `{"apiVersion":"v1","kind":"Config","current-context":"mine","contexts":[{"name":"mine",` +
		`"context":{"cluster":"mine","user":"mine"}}],"clusters":[{"name":"mine",` +
		`"cluster":{"server":"https://192.0.2.1"}}],"users":[{"name":"mine","user":{"token":"x"}}]}`
	if err := os.WriteFile(b.kubeconfig, []byte(mine), 0o644); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bed) kind(name string) *cluster.Kind {
	return newKind(b.docker, b.endpoint, name, b.kubeconfig, b.TempDir())
}

func newKind(api *client.Client, endpoint docker.Endpoint, name, kubeconfig, locks string) *cluster.Kind {
	image := os.Getenv("SM_E2E_NODE_IMAGE")
	if image == "" {
		image = "kindest/node:v1.36.3"
	}
	return cluster.NewKind(cluster.KindOptions{
		Name: name, Config: []byte(config), NodeImage: image, Kubeconfig: kubeconfig,
		Docker: api, Endpoint: endpoint, LockDir: locks,
	})
}

// remains counts everything a create can leave behind. kind's network is shared by all kind clusters and stays, as kind
// itself has it; other clusters may come and go meanwhile and are not counted.
func (b *bed) remains() map[string]int {
	b.Helper()
	ctx := context.Background()
	listed, err := b.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		b.Fatal(err)
	}
	containers, others := 0, make(map[string]bool)
	for _, c := range listed.Items {
		if name, ok := c.Labels[node.ClusterLabel]; !ok || name == "f-e2e" {
			containers++
			continue
		}
		for _, m := range c.Mounts {
			others[m.Name] = true
		}
	}
	stored, err := b.docker.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	volumes := 0
	for _, v := range stored.Items {
		if !others[v.Name] {
			volumes++
		}
	}
	networks, err := b.docker.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	custom := 0
	for _, n := range networks.Items {
		if n.Name != "kind" {
			custom++
		}
	}
	cfg, err := clientcmd.LoadFromFile(b.kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	locks, err := filepath.Glob(b.kubeconfig + ".lock")
	if err != nil {
		b.Fatal(err)
	}
	return map[string]int{
		"containers": containers, "volumes": volumes, "networks": custom,
		"contexts": len(cfg.Contexts), "clusters": len(cfg.Clusters), "users": len(cfg.AuthInfos),
		"kubeconfig locks": len(locks),
	}
}

func (b *bed) current() string {
	b.Helper()
	cfg, err := clientcmd.LoadFromFile(b.kubeconfig)
	if err != nil {
		b.Fatal(err)
	}
	return cfg.CurrentContext
}

func (b *bed) same(before map[string]int) {
	b.Helper()
	if after := b.remains(); !maps.Equal(before, after) {
		b.Errorf("left behind: before %v, after %v", before, after)
	}
}

// TestKindCreateInspectDelete is the whole life of a three-node cluster.
func TestKindCreateInspectDelete(t *testing.T) {
	b := newBed(t)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	before := b.remains()
	k := b.kind("f-e2e")
	t.Cleanup(func() {
		clean, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := k.Delete(clean); err != nil {
			t.Error(err)
		}
		b.same(before)
		if got := b.current(); got != "" {
			t.Errorf("current context after delete is %q, want none: the cluster it named is gone", got)
		}
	})
	e := engine.Engine{Sink: sink{t}}
	plan := engine.Plan{Name: "cluster", Steps: []engine.Step{cluster.Step(k, "cluster", 5*time.Minute)}}
	result, err := e.Apply(ctx, plan)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("created in %s: %s", result.Duration.Round(time.Second), result.Steps[0].Message)
	if got := b.current(); got != "kind-f-e2e" {
		t.Errorf("current context is %q, want kind-f-e2e", got)
	}
	if mode := fileMode(t, b.kubeconfig); mode != 0o600 {
		t.Errorf("kubeconfig has mode %o, want 600", mode)
	}
	info, err := k.Inspect(ctx)
	if err != nil || info.State != cluster.Ready || !info.Owned || len(info.Nodes) != 3 {
		t.Fatalf("Inspect: %+v, %v", info, err)
	}
	again, err := e.Apply(ctx, plan)
	if err != nil || len(again.Changes()) != 0 || again.Steps[0].Outcome != engine.Unchanged {
		t.Errorf("second create: %+v, %v; want nothing changed", again, err)
	}
	t.Logf("second create took %s", again.Duration.Round(10*time.Millisecond))

	results, err := node.Tune(ctx, b.docker, info.Nodes, node.Inotify())
	if err != nil || len(results) != 6 {
		t.Errorf("Tune: %v, %v", results, err)
	}
	for _, r := range results {
		t.Log(r)
		if !r.Holds() {
			t.Errorf("%s: want at least %d", r, r.Want)
		}
	}

	pool, err := lb.Find(ctx, b.docker, info.Nodes)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("pool: slot %d of %s: %v (%d addresses)", pool.Slot, pool.Subnet, pool.Ranges, pool.Size())
	for _, n := range info.Nodes {
		if a := netip.MustParseAddr(n.InternalIP); pool.Contains(a) || !pool.Subnet.Contains(a) {
			t.Errorf("node %s has %s: in the pool %v, or outside %s", n.Name, a, pool.Ranges, pool.Subnet)
		}
	}

	// Another kind cluster's provider of the same name but without the mark is covered by unit tests; here a stopped
	// node is started again.
	worker := info.Nodes[len(info.Nodes)-1]
	if _, err := b.docker.ContainerStop(ctx, worker.ContainerID, client.ContainerStopOptions{}); err != nil {
		t.Fatal(err)
	}
	if stopped, err := k.Inspect(ctx); err != nil || stopped.State != cluster.Stopped {
		t.Errorf("Inspect with a stopped node: %+v, %v", stopped, err)
	}
	if _, err := e.Apply(ctx, plan); err != nil {
		t.Errorf("starting it again: %v", err)
	}
	logs := t.TempDir()
	// A source-built node image has no crictl, which kind runs too; the rest is there.
	if err := k.CollectLogs(ctx, logs); err != nil && !strings.Contains(err.Error(), "crictl") {
		t.Error(err)
	}
	if files, _ := filepath.Glob(filepath.Join(logs, "*", "kubelet.log")); len(files) != 3 {
		t.Errorf("CollectLogs wrote %d kubelet logs, want 3", len(files))
	}
}

// TestKindInterrupted cancels a create at several moments and counts what is left.
func TestKindInterrupted(t *testing.T) {
	b := newBed(t)
	k := b.kind("f-e2e")
	before := b.remains()
	for _, moment := range []string{
		"Preparing nodes", "Writing configuration", "Starting control-plane",
		"Joining worker nodes",
	} {
		t.Run(moment, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			why := errors.New("interrupt")
			e := engine.Engine{Sink: trigger{sink{t}, moment, func() { cancel(why) }}}
			start := time.Now()
			_, err := e.Apply(ctx, engine.Plan{Name: "cluster", Steps: []engine.Step{cluster.Step(k, "cluster", 0)}})
			if err == nil {
				t.Fatal("a cancelled create succeeded")
			}
			t.Logf("ended after %s with: %v", time.Since(start).Round(100*time.Millisecond), err)
			b.same(before)
			if got := b.current(); got != "mine" {
				t.Errorf("current context is %q after a create that failed", got)
			}
		})
	}
}

type sink struct{ t *testing.T }

func (s sink) Handle(ev engine.Event) {
	s.t.Log(strings.TrimSpace(fmt.Sprintf("%s %s %s", ev.Time.Format("15:04:05.0"), ev.Kind, ev.Message)))
}

// trigger calls fire when progress says the moment has come.
type trigger struct {
	sink
	moment string
	fire   func()
}

func (s trigger) Handle(ev engine.Event) {
	s.sink.Handle(ev)
	if ev.Kind == engine.StepProgress && strings.Contains(ev.Message, s.moment) {
		s.fire()
	}
}

func fileMode(t *testing.T, path string) os.FileMode {
	t.Helper()
	stat, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return stat.Mode().Perm()
}
