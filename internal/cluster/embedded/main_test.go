package embedded

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/cluster/embedded/embeddedtest"
	"ambientlab/internal/filelock"
)

func TestMain(m *testing.M) {
	os.Exit(embeddedtest.Main(m, removeLab))
}

func removeLab(ctx context.Context, stateDir, name string) error {
	e, err := New(Options{Name: name, StateDir: stateDir, Kubeconfig: filepath.Join(stateDir, "..", "kubeconfig")})
	if err != nil {
		return err
	}
	return e.Delete(ctx)
}

// TestSweep removes the labs of a test process that is gone, and leaves those of one that lives.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	for _, c := range []struct {
		name  string
		lives bool
	}{{"gone", false}, {"lives", true}} {
		root := filepath.Join(parent, "ambientlab-test-"+c.name)
		dir := filepath.Join(root, "TestX", "001")
		e, err := New(Options{
			Name: "left", StateDir: filepath.Join(dir, "state"),
			Kubeconfig: filepath.Join(dir, "kubeconfig"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.prepare(packets{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
		if err := e.ensure(t.Context(), shell(e, etcd, "exec sleep 60"), always); err != nil {
			t.Fatal(err)
		}
		owner, err := filelock.Try(filepath.Join(root, "owner.lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = owner.Unlock() }()
		if !c.lives {
			_ = owner.Unlock() // as the end of its process does
		}
		known, err := e.record(etcd)
		if err != nil {
			t.Fatal(err)
		}
		embeddedtest.Sweep(parent, removeLab)
		if known.alive() != c.lives || exists(root) != c.lives {
			t.Errorf("%s: process alive %v, folder there %v", c.name, known.alive(), exists(root))
		}
	}
}

// TestLeftLab interrupts a test process as Ctrl-C does: the process that its lab started is ended.
func TestLeftLab(t *testing.T) {
	if os.Getenv("EMBEDDED_TEST_SLEEPS") != "" {
		e := plain(t)
		if err := e.ensure(t.Context(), shell(e, etcd, "exec sleep 60"), always); err != nil {
			t.Fatal(err)
		}
		runtime.GC() // which closes files without a reference
		runtime.GC()
		if err := os.WriteFile(os.Getenv("EMBEDDED_TEST_SLEEPS"), []byte(e.recordFile(etcd)), 0o600); err != nil {
			t.Fatal(err)
		}
		<-e.after(time.Minute)
		return
	}
	temporary := t.TempDir()
	said := filepath.Join(temporary, "record")
	child := exec.Command(os.Args[0], "-test.run=^TestLeftLab$")
	child.Env = append(os.Environ(), "TMPDIR="+temporary, "EMBEDDED_TEST_SLEEPS="+said)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var record []byte
	for deadline := time.Now().Add(20 * time.Second); len(record) == 0 && time.Now().Before(deadline); {
		record, _ = os.ReadFile(said)
	}
	path := string(record)
	e := &Embedded{dir: filepath.Dir(filepath.Dir(path))}
	known, err := e.record(strings.TrimSuffix(filepath.Base(path), ".json"))
	if err != nil || !known.alive() {
		t.Fatalf("the child's lab: %v, %v", known, err)
	}
	embeddedtest.Sweep(temporary, removeLab)
	if !known.alive() {
		t.Fatal("the lab of a test process that lives was swept")
	}
	if err := child.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if known.alive() {
		t.Errorf("process %d still runs", known.PID)
	}
	if left, _ := filepath.Glob(filepath.Join(temporary, "ambientlab-test-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
