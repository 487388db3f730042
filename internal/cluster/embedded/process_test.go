package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
)

// plain describes a lab that starts nothing real: its programs are shell scripts.
func plain(t *testing.T) *Embedded {
	t.Helper()
	dir := t.TempDir()
	e, err := New(Options{
		Name: "plain", Packets: PacketsOff, StateDir: filepath.Join(dir, "state"),
		Kubeconfig: filepath.Join(dir, "kubeconfig"),
		Programs:   func(func(string, string)) (Programs, error) { return nil, errors.New("no programs in this test") },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.prepare(packets{}); err != nil {
		t.Fatal(err)
	}
	return e
}

func shell(e *Embedded, name, script string) spec {
	return spec{
		Name: name, Path: "/bin/sh", Args: []string{"-c", script}, Env: e.environment(),
		Dir: filepath.Join(e.dir, "run"),
	}
}

func always(context.Context) error { return nil }

// TestForeignProcess gives a record the ID of a process that is not the lab's: one that was given the ID later. It must
// not be signalled, whatever is asked for.
func TestForeignProcess(t *testing.T) {
	e := plain(t)
	bystander := exec.Command("/bin/sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	err := writeJSON(e.recordFile(etcd), record{PID: bystander.Process.Pid, Started: "long ago"})
	if err != nil {
		t.Fatal(err)
	}
	if known, err := e.record(etcd); err != nil || known.alive() {
		t.Errorf("the bystander is taken for etcd (%v)", err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, running, _ := startTime(bystander.Process.Pid); !running {
		t.Error("the bystander was ended")
	}
}

// TestDeadOnArrival wants the log's last lines in the error of a component that ends at once.
func TestDeadOnArrival(t *testing.T) {
	e := plain(t)
	never := func(context.Context) error { return errors.New("not yet") }
	err := e.ensure(t.Context(), shell(e, etcd, "echo first; echo the disk is full >&2; exit 3"), never)
	if err == nil || !strings.Contains(err.Error(), "the disk is full") ||
		!strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
	var known *problem.Problem
	if !errors.As(err, &known) || known.ID != problem.ClusterCreateFailed.ID {
		t.Errorf("got %v", err)
	}
}

// TestEnsure starts, keeps, and after a change of its settings restarts a component.
func TestEnsure(t *testing.T) {
	e := plain(t)
	t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
	pid := func() int {
		t.Helper()
		known, err := e.record(etcd)
		if err != nil || !known.alive() {
			t.Fatalf("it does not run: %v", err)
		}
		return known.PID
	}
	ensure := func(script string) int {
		t.Helper()
		if err := e.ensure(t.Context(), shell(e, etcd, script), always); err != nil {
			t.Fatal(err)
		}
		return pid()
	}
	first := ensure("exec sleep 60")
	if second := ensure("exec sleep 60"); second != first {
		t.Error("it was restarted without need")
	}
	if third := ensure("exec sleep 61"); third == first {
		t.Error("it was not restarted although its settings changed")
	}
	if err := e.stop(t.Context(), etcd, false); err != nil {
		t.Fatal(err)
	}
	if e.runs(etcd) || exists(e.recordFile(etcd)) {
		t.Error("it was not stopped")
	}
}

// TestInherited keeps from a component what this process has inherited: the component outlives it.
func TestInherited(t *testing.T) {
	e := plain(t)
	t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
	lock := filepath.Join(t.TempDir(), "lock")
	fd, err := unix.Open(lock, unix.O_CREAT|unix.O_RDWR, 0o600) // as a shell opens a file: without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	seen := filepath.Join(e.dir, "run", "seen")
	script := fmt.Sprintf("if [ -e /dev/fd/%d ]; then echo inherited; else echo kept; fi >%s; exec sleep 60", fd, seen)
	written := func(context.Context) error {
		if raw, err := os.ReadFile(seen); err != nil || len(raw) == 0 {
			return errors.New("not yet")
		}
		return nil
	}
	if err := e.ensure(t.Context(), shell(e, etcd, script), written); err != nil {
		t.Fatal(err)
	}
	if raw, err := os.ReadFile(seen); err != nil || string(raw) != "kept\n" {
		t.Errorf("%q, %v", raw, err)
	}
}

// TestStubborn ends a component that ignores the request to end.
func TestStubborn(t *testing.T) {
	e := plain(t)
	e.after = func(d time.Duration) <-chan time.Time { return time.After(d / 20) }
	if err := e.ensure(t.Context(), shell(e, etcd, "trap '' TERM; while :; do sleep 1; done"), always); err != nil {
		t.Fatal(err)
	}
	known, err := e.record(etcd)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.stop(t.Context(), etcd, false); err != nil {
		t.Fatal(err)
	}
	if known.alive() {
		t.Error("it still runs")
	}
}

// TestDetached wants a component in a session of its own: the end of the terminal must not reach it.
func TestDetached(t *testing.T) {
	e := plain(t)
	t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
	if err := e.ensure(t.Context(), shell(e, etcd, "exec sleep 60"), always); err != nil {
		t.Fatal(err)
	}
	known, err := e.record(etcd)
	if err != nil {
		t.Fatal(err)
	}
	if session, err := unix.Getsid(known.PID); err != nil || session != known.PID {
		t.Errorf("session %d of process %d, %v", session, known.PID, err)
	}
}

// TestPrivate wants everything of a lab closed to others: its keys are an administrator's.
func TestPrivate(t *testing.T) {
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.writeKubeconfigs(s); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(e.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(path, ".crt") {
			t.Errorf("%s has mode %v", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPartial takes a folder without an end of its creation for what it is.
func TestPartial(t *testing.T) {
	e := plain(t)
	wantState(t, e, cluster.Partial)
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantState(t, e, cluster.Absent)
}

// TestCreateWithoutPrograms leaves nothing behind where nothing can be built.
func TestCreateWithoutPrograms(t *testing.T) {
	e := plain(t)
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := e.Create(t.Context()); err == nil {
		t.Fatal("it was created")
	}
	wantState(t, e, cluster.Absent)
	if exists(e.dir) {
		t.Error("its folder is left")
	}
}

// TestLock keeps two runs apart, and lets the second go on when the first has deleted the lab, lock and all.
func TestLock(t *testing.T) {
	e := plain(t)
	unlock, err := e.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if _, err := e.lock(waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second run got %v", err)
	}
	if err := os.Remove(e.lockFile()); err != nil {
		t.Fatal(err)
	}
	unlock()
	again, err := e.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer again()
	if !exists(e.lockFile()) {
		t.Error("the second run holds the lock of a file that is gone")
	}
}

// TestMovePorts chooses another port where another program took one while the lab was stopped.
func TestMovePorts(t *testing.T) {
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	before, kept := s.Ports[portAPI], s.Ports[portEtcd]
	thief := listenOn(t, before)
	defer func() { _ = thief.Close() }()
	if err := e.movePorts(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if s.Ports[portAPI] == before || s.Ports[portEtcd] != kept {
		t.Errorf("ports %v", s.Ports)
	}
}

// TestEnding starts a component again that was still there when it was looked at, and ended before it was ready.
func TestEnding(t *testing.T) {
	e := plain(t)
	t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
	script := shell(e, etcd, "exec sleep 60")
	if err := e.ensure(t.Context(), script, always); err != nil {
		t.Fatal(err)
	}
	first, err := e.record(etcd)
	if err != nil {
		t.Fatal(err)
	}
	ready := func(context.Context) error {
		if now, err := e.record(etcd); err == nil && now != first {
			return nil
		}
		process, err := os.FindProcess(first.PID)
		if err != nil {
			return err
		}
		return errors.Join(errors.New("not ready"), process.Kill())
	}
	if err := e.ensure(t.Context(), script, ready); err != nil {
		t.Fatal(err)
	}
	if second, err := e.record(etcd); err != nil || second.PID == first.PID || !second.alive() {
		t.Errorf("got %v after %v, %v", second, first, err)
	}
}
