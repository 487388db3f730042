package embedded

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/source"
)

// newLab describes a control plane of the test's own, which is removed when the test ends.
func newLab(t *testing.T, name string) *Embedded {
	t.Helper()
	dir := t.TempDir()
	e, err := New(Options{
		Name: name, Workers: 2, Packets: PacketsOff, StateDir: filepath.Join(dir, "state"),
		Kubeconfig: filepath.Join(dir, "kubeconfig"),
		Programs: func(progress func(string, string)) (Programs, error) {
			return source.New(source.Options{Progress: progress})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := e.Delete(ctx); err != nil {
			t.Error(err)
		}
	})
	return e
}

func inspect(t *testing.T, e *Embedded) cluster.Info {
	t.Helper()
	info, err := e.Inspect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func wantState(t *testing.T, e *Embedded, want cluster.State) cluster.Info {
	t.Helper()
	info := inspect(t, e)
	if info.State != want {
		t.Fatalf("state %q, not %q: %s", info.State, want, info.Message)
	}
	return info
}

func create(t *testing.T, e *Embedded) {
	t.Helper()
	start := time.Now()
	if err := e.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("created in %s", time.Since(start).Round(time.Millisecond))
}

// TestLife takes a control plane through its life: made, found, hurt, healed, deleted.
func TestLife(t *testing.T) {
	e := newLab(t, "life")
	wantState(t, e, cluster.Absent)
	create(t, e)
	info := wantState(t, e, cluster.Ready)
	var names []string
	for _, n := range info.Nodes {
		names = append(names, n.Name)
	}
	if got := strings.Join(names, " "); got != "life-control-plane life-worker life-worker2" {
		t.Errorf("nodes %s", got)
	}
	if info.Packets {
		t.Error("it says that it carries packets")
	}

	for _, victim := range []string{podRunner, etcd, apiServer} {
		known, err := e.record(victim)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(known.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		e.gone(t.Context(), known, 10*time.Second)
		hurt := wantState(t, e, cluster.Stopped)
		if !strings.Contains(hurt.Message, victim+" does not run") {
			t.Errorf("after kill -9 of %s: %s", victim, hurt.Message)
		}
		create(t, e)
		wantState(t, e, cluster.Ready)
	}

	// What was not hurt goes on as it is.
	before, err := e.record(scheduler)
	if err != nil {
		t.Fatal(err)
	}
	create(t, e)
	if after, err := e.record(scheduler); err != nil || after != before {
		t.Errorf("a second Create made %v of %v (%v)", after, before, err)
	}

	var running []record
	for _, name := range baseComponents() {
		known, err := e.record(name)
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, known)
	}
	state, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, e, cluster.Absent)
	for _, known := range running {
		if known.alive() {
			t.Errorf("process %d still runs", known.PID)
		}
	}
	// Another lab on this machine may have been given one of the ports by now, so a port that is taken says nothing;
	// that none of this lab's processes lives does: a listening port goes with its process.
	if _, err := os.Stat(e.opts.StateDir); !os.IsNotExist(err) {
		t.Errorf("files are left: %v", err)
	}
	if e.kubeconfig().Linked(e.ContextName(), state.server()) {
		t.Error("the kubeconfig still has the entry")
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func listenOn(t *testing.T, port int) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:"+itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// TestInterrupted ends a creation in the middle: nothing of it may be left. Then two labs live side by side.
func TestInterrupted(t *testing.T) {
	one, other := newLab(t, "one"), newLab(t, "other")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("interrupted by the test")
	starter := one.starter
	var started []int
	one.starter = func(s spec, log string) (int, <-chan error, error) {
		pid, ended, err := starter(s, log)
		started = append(started, pid)
		if s.Name == apiServer {
			cancel(stop)
		}
		return pid, ended, err
	}
	if err := one.Create(ctx); !errors.Is(err, stop) {
		t.Fatalf("an interrupted creation gave %v", err)
	}
	if len(started) != 2 {
		t.Errorf("%d processes were started", len(started))
	}
	for _, pid := range started {
		if _, running, _ := startTime(pid); running {
			t.Errorf("process %d still runs", pid)
		}
	}
	wantState(t, one, cluster.Absent)
	one.starter = starter
	create(t, one)
	create(t, other)
	wantState(t, one, cluster.Ready)
	if err := other.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, one, cluster.Ready)
	wantState(t, other, cluster.Absent)
}
