//go:build e2efull

package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// With these set, the test binary is the program that is killed.
const (
	victimKubeconfig = "SM_E2E_VICTIM_KUBECONFIG"
	victimLocks      = "SM_E2E_VICTIM_LOCKS"
)

func TestMain(m *testing.M) {
	if kubeconfig := os.Getenv(victimKubeconfig); kubeconfig != "" {
		os.Exit(victim(kubeconfig, os.Getenv(victimLocks)))
	}
	os.Exit(m.Run())
}

// victim creates the cluster as a target does, and tells its progress.
func victim(kubeconfig, locks string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	api, endpoint, err := docker.New(docker.SystemEnv())
	if err != nil {
		fmt.Println(err)
		return 1
	}
	k := newKind(api, endpoint, "f-e2e", kubeconfig, locks)
	e := engine.Engine{Sink: printer{}}
	if _, err := e.Apply(ctx, engine.Plan{Name: "cluster", Steps: []engine.Step{cluster.Step(k, "cluster", "Create the cluster", 0, nil)}}); err != nil {
		fmt.Println("failed:", err)
		return 1
	}
	return 0
}

type printer struct{}

func (printer) Handle(ev engine.Event) { fmt.Println(ev.Message) }

// TestKindHalfCreated leaves what a SIGKILL leaves and lets the next run finish.
func TestKindHalfCreated(t *testing.T) {
	b := newBed(t)
	before := b.remains()
	k := b.kind("f-e2e")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if err := k.Delete(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
		b.same(before)
	})
	if err := k.Create(ctx); err != nil {
		t.Fatal(err)
	}
	// One worker short and without the mark of completion, it is what a killed run leaves.
	info, err := k.Inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker.Exec(ctx, b.docker, info.Nodes[0].ContainerID, "rm", "/etc/ambientlab/complete"); err != nil {
		t.Fatal(err)
	}
	last := info.Nodes[len(info.Nodes)-1]
	if _, err := b.docker.ContainerRemove(ctx, last.ContainerID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		t.Fatal(err)
	}
	if info, err = k.Inspect(ctx); err != nil || info.State != cluster.Partial {
		t.Fatalf("Inspect: %+v, %v; want half-created", info, err)
	}
	if err := k.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if info, err = k.Inspect(ctx); err != nil || info.State != cluster.Ready || len(info.Nodes) != 3 {
		t.Errorf("Inspect: %+v, %v; want ready", info, err)
	}
}

// TestKindRefused: what the kubelet says must reach the user, not a time-out.
func TestKindRefused(t *testing.T) {
	b := newBed(t)
	before := b.remains()
	info, err := b.docker.Info(context.Background(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Info.CgroupVersion != "1" {
		t.Logf("this engine runs cgroup v%s, so the kubelet has nothing to refuse", info.Info.CgroupVersion)
		return
	}
	k := cluster.NewKind(cluster.KindOptions{
		Name: "f-e2e", NodeImage: "kindest/node:v1.36.3", Kubeconfig: b.kubeconfig,
		Docker: b.docker, Endpoint: b.endpoint, LockDir: b.TempDir(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	err = k.Create(ctx)
	t.Log(err)
	if !problem.Is(err, problem.HostUnsupported) {
		t.Errorf("Create on cgroup v1 without the patch: %v", err)
	}
	b.same(before)
}

// TestKindKilled sends signals to a run's whole process group, as a terminal does, so
// that kind's docker commands get them too; then the next run must end well.
func TestKindKilled(t *testing.T) {
	b := newBed(t)
	before := b.remains()
	locks := t.TempDir()
	k := newKind(b.docker, b.endpoint, "f-e2e", b.kubeconfig, locks)
	ctx, cancel := context.WithTimeout(context.Background(), 9*time.Minute)
	defer cancel()
	for _, tt := range []struct {
		signal  syscall.Signal
		moment  string
		nothing bool // nothing may be left at once
	}{
		{syscall.SIGINT, "Preparing nodes", true},
		{syscall.SIGTERM, "Starting control-plane", true},
		{syscall.SIGKILL, "Preparing nodes", false},
		{syscall.SIGKILL, "Joining worker nodes", false},
	} {
		t.Run(fmt.Sprintf("%s in %s", tt.signal, tt.moment), func(t *testing.T) {
			took := kill(t, b.kubeconfig, locks, tt.moment, tt.signal)
			after := b.remains()
			t.Logf("ended %s after the signal; containers %d -> %d, volumes %d -> %d, current context %s", took.Round(100*time.Millisecond),
				before["containers"], after["containers"], before["volumes"], after["volumes"], b.current())
			if b.current() != "mine" {
				t.Errorf("current context is %q", b.current())
			}
			if tt.nothing {
				b.same(before)
			}
			info, err := k.Inspect(ctx)
			t.Logf("found: %s, %v", info.Summary(), err)
		})
	}
	start := time.Now()
	if err := k.Create(ctx); err != nil {
		t.Errorf("the next run: %v", err)
	}
	t.Logf("the next run took %s", time.Since(start).Round(time.Second))
	if info, err := k.Inspect(ctx); err != nil || info.State != cluster.Ready || len(info.Nodes) != 3 {
		t.Errorf("%+v, %v", info, err)
	}
	if err := k.Delete(ctx); err != nil {
		t.Error(err)
	}
	b.same(before)
	if left, err := filepath.Glob(filepath.Join(locks, "*.scratch*")); err != nil || len(left) != 0 {
		t.Errorf("left beside the lock: %v, %v", left, err)
	}
}

// kill starts a run and sends the signal when its progress says the moment has come.
func kill(t *testing.T, kubeconfig, locks, moment string, sig syscall.Signal) time.Duration {
	t.Helper()
	run := exec.Command(os.Args[0])
	run.Env = append(os.Environ(), victimKubeconfig+"="+kubeconfig, victimLocks+"="+locks)
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	var sent time.Time
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		t.Log(lines.Text())
		if sent.IsZero() && strings.Contains(lines.Text(), moment) {
			sent = time.Now()
			if err := syscall.Kill(-run.Process.Pid, sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := run.Wait(); err == nil || sent.IsZero() {
		t.Fatalf("the run was not interrupted: %v", err)
	}
	return time.Since(sent)
}
