package embedded

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/problem"
	"ambientlab/internal/source"
)

// TestNoRecord wants a process ended whose record cannot be written: no later run would find it.
func TestNoRecord(t *testing.T) {
	e := plain(t)
	if err := os.Mkdir(e.recordFile(etcd), 0o700); err != nil {
		t.Fatal(err)
	}
	pid := 0
	starter := e.starter
	e.starter = func(s spec, log string) (int, <-chan error, error) {
		started, ended, err := starter(s, log)
		pid = started
		return started, ended, err
	}
	if err := e.launch(t.Context(), shell(e, etcd, "exec sleep 60"), always); err == nil {
		t.Fatal("it was started without a record")
	}
	if _, running, err := startTime(pid); running || err != nil || pid == 0 {
		t.Errorf("process %d: still there %v, %v", pid, running, err)
	}
}

// TestBrokenRecord wants a half-written record to stop no run.
func TestBrokenRecord(t *testing.T) {
	e := plain(t)
	if err := os.WriteFile(e.recordFile(podRunner), []byte(`{"pid": 1`), 0o600); err != nil {
		t.Fatal(err)
	}
	dead, err := e.dead()
	if err != nil || !strings.Contains(strings.Join(dead, "; "), podRunner+" does not run") {
		t.Errorf("got %q, %v", dead, err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestUnreadableState keeps a lab whose state cannot be read just now, and creates one again whose state is broken.
func TestUnreadableState(t *testing.T) {
	e := plain(t)
	fakePrograms(e, program)
	path := filepath.Join(e.dir, stateFile)
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := e.Create(t.Context()); err == nil || !exists(path) {
		t.Errorf("got %v; the state is there: %v", err, exists(path))
	}
	if info, err := e.Inspect(t.Context()); err == nil {
		t.Errorf("a look at it found %q", info.State)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	// It comes as far as etcd, whose program does not exist, and removes what it made.
	if err := e.Create(t.Context()); !errors.Is(err, exec.ErrNotFound) || exists(e.dir) {
		t.Errorf("got %v; the folder is there: %v", err, exists(e.dir))
	}
}

// TestServerMoves wants every process that reads the API server's address started again when that changes.
func TestServerMoves(t *testing.T) {
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	digests := func() map[string]string {
		found := map[string]string{}
		for _, name := range []string{controllerManager, scheduler, podRunner} {
			found[name] = e.component(s, name, name).spec.digest()
		}
		for _, w := range workloads() {
			found[w.component] = e.workload(s, w.component, w.component, settings{}).spec.digest()
		}
		return found
	}
	before := digests()
	s.Ports[portAPI]++
	for name, digest := range digests() {
		if digest == before[name] {
			t.Errorf("%s goes on with the old address", name)
		}
	}
}

// TestAskPS reads what ps prints on a system without a better way, and does not take its failure for a process's end.
func TestAskPS(t *testing.T) {
	exit := func(script string) error {
		_, err := exec.Command("/bin/sh", "-c", script).Output()
		return err
	}
	for _, c := range []struct {
		name    string
		out     string
		err     error
		started string
		running bool
		unknown bool
	}{
		{name: "it runs", out: "Ss   Wed Nov 25 19:59:01 2026\n", started: "Wed Nov 25 19:59:01 2026", running: true},
		{name: "it ended and was not fetched", out: "Z+   Wed Nov 25 19:59:01 2026\n"},
		{name: "there is none", err: exit("exit 1")},
		{name: "ps cannot be run", err: exec.ErrNotFound, unknown: true},
		{name: "ps does not know the words", err: exit("echo usage >&2; exit 1"), unknown: true},
		{name: "ps was killed", err: exit("kill -9 $$"), unknown: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var environment []string
			started, running, err := askPS(42, func(env []string, _ ...string) ([]byte, error) {
				environment = env
				return []byte(c.out), c.err
			})
			if started != c.started || running != c.running || (err != nil) != c.unknown {
				t.Errorf("got %q, %v, %v", started, running, err)
			}
			if got := strings.Join(environment, " "); got != "LC_ALL=C TZ=UTC" {
				t.Errorf("environment %q", got)
			}
		})
	}
}

// TestDiesWhileWaitedFor ends a wait as soon as a component dies, with its log's last lines.
func TestDiesWhileWaitedFor(t *testing.T) {
	e := plain(t)
	t.Cleanup(func() { _ = e.remove(context.WithoutCancel(t.Context())) })
	if err := e.ensure(t.Context(), shell(e, podRunner, "echo no stages; exec sleep 0.2"), always); err != nil {
		t.Fatal(err)
	}
	err := e.whileAllRun(t.Context(), func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	if !problem.Is(err, problem.ClusterStopped) || !strings.Contains(err.Error(), "no stages") {
		t.Errorf("got %v", err)
	}
}

// programs are made up: each has a path, and none is ever run.
type programs struct {
	path  func(name string) string
	build func() error
}

func (p programs) Path(_ context.Context, name string) (string, error) { return p.path(name), nil }

func (p programs) Binaries(_ context.Context, names []string) (map[string]string, error) {
	paths := map[string]string{}
	for _, name := range names {
		paths[name] = p.path(name)
	}
	return paths, p.build()
}

func (p programs) ProgramsOf(string) ([]string, error) { return nil, nil }

func (p programs) Unpack(context.Context, string) (source.Unpacked, error) {
	return source.Unpacked{}, errNoModules
}

func (p programs) Envoy(context.Context) (string, error) { return "", errNoModules }

func (p programs) HasEnvoy() bool { return false }

var errNoModules = errors.New("no modules in this test")

// fakePrograms gives a lab made-up programs at given paths.
func fakePrograms(e *Embedded, path func(name string) string) {
	e.opts.Programs = func(func(string, string)) (Programs, error) {
		return programs{path: path, build: func() error { return nil }}, nil
	}
}

// TestOlderBuild tells a component of today's sources from one of others.
func TestOlderBuild(t *testing.T) {
	e := plain(t)
	for _, name := range baseComponents() {
		if err := writeJSON(e.recordFile(name), record{PID: 1, Path: "/old/" + name}); err != nil {
			t.Fatal(err)
		}
	}
	fakePrograms(e, func(name string) string {
		if name == scheduler {
			return "/new/" + name
		}
		return "/old/" + name
	})
	if got := strings.Join(e.outdated(t.Context()), " "); got != scheduler {
		t.Errorf("got %q", got)
	}
	pods := runnerSettings{Images: []runnerImage{{Files: []runnerFile{{"/bin/a", "/old/a"}, {"/bin/b", "/other/b"}}}}}
	if err := writeJSON(filepath.Join(e.dir, runnerConfig), pods); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(e.outdated(t.Context()), " "); got != scheduler+" b" {
		t.Errorf("with programs of pods: %q", got)
	}
}

// TestBuildFirst builds while no other run has to wait for the lock, and gives a build that failed its own ID.
func TestBuildFirst(t *testing.T) {
	e := plain(t)
	broken, tried := errors.New("the compiler is broken"), 0
	e.opts.Programs = func(func(string, string)) (Programs, error) {
		return programs{path: program, build: func() error {
			tried++
			noWait, cancel := context.WithCancel(t.Context())
			cancel()
			unlock, err := e.lock(noWait)
			if err != nil {
				t.Errorf("the lock is held during a build (%v)", err)
				return broken
			}
			unlock()
			return broken
		}}, nil
	}
	for name, run := range map[string]func(context.Context) error{
		"create": e.Create,
		"start":  func(ctx context.Context) error { return e.Start(ctx, istiod) },
	} {
		if err := run(t.Context()); !errors.Is(err, broken) || !problem.Is(err, problem.BuildFailed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if tried != 2 {
		t.Errorf("%d builds", tried)
	}
}

// TestFailedCreate leaves nothing of a creation that failed in the middle, the lock and the folders included.
func TestFailedCreate(t *testing.T) {
	e := plain(t)
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	fakePrograms(e, program) // which do not exist; that is found out when the folder is there
	if err := e.Create(t.Context()); err == nil {
		t.Fatal("it was created")
	}
	if exists(e.opts.StateDir) {
		t.Error("folders are left")
	}
}

// TestLockAndDelete lets a run that waits for the end of a delete go on, though the delete takes the folder of all labs
// away.
func TestLockAndDelete(t *testing.T) {
	e := plain(t)
	unlock, err := e.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		release, err := e.lock(t.Context())
		if err == nil {
			release()
		}
		got <- err
	}()
	// What Delete does while it holds the lock.
	if err := e.remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if exists(e.opts.StateDir) {
		t.Error("folders are left")
	}
}
