package lab

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// kindLab is a lab with the default settings, whose state is in a folder of the test's own.
func kindLab(t *testing.T, pairs ...string) (*Lab, *buffer) {
	t.Helper()
	settings, err := Load(env(append([]string{"KUBECONFIG", filepath.Join(t.TempDir(), "kubeconfig")}, pairs...)...))
	if err != nil {
		t.Fatal(err)
	}
	talk := &buffer{}
	l, err := New(settings, &buffer{}, ui.New(ui.Plain, talk, env()))
	if err != nil {
		t.Fatal(err)
	}
	l.stateDir = t.TempDir()
	return l, talk
}

// withoutDocker lets the docker command's settings lead to no engine.
func withoutDocker(t *testing.T) {
	t.Helper()
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
}

// TestBeside wants every target that looks for a kind cluster in vain to say that an embedded control plane of that
// name is there.
func TestBeside(t *testing.T) {
	withoutDocker(t)
	for _, target := range []struct {
		name string
		run  func(*Lab, context.Context) error
	}{
		{"delete", (*Lab).Delete},
		{"status", (*Lab).Status},
		{"apps", func(l *Lab, ctx context.Context) error { return l.Apps(ctx, false) }},
	} {
		t.Run(target.name, func(t *testing.T) {
			advice := func(l *Lab) string {
				t.Helper()
				var known *problem.Problem
				if err := target.run(l, t.Context()); !errors.As(err, &known) || known.ID != problem.DockerNotRunning.ID {
					t.Fatalf("got %v", err)
				}
				return strings.Join(known.Advice, "\n")
			}
			const word = "embedded control plane of the name ambient"
			l, _ := kindLab(t)
			if text := advice(l); strings.Contains(text, word) {
				t.Errorf("there is none, and it says:\n%s", text)
			}
			if err := os.Mkdir(filepath.Join(l.stateDir, "ambient"), 0o700); err != nil {
				t.Fatal(err)
			}
			if text := advice(l); !strings.Contains(text, word) {
				t.Errorf("it does not say %q:\n%s", word, text)
			}
		})
	}
}

// TestNextAfterAuto wants what sm:lab tells to type next to be what works with the provider that it chose.
func TestNextAfterAuto(t *testing.T) {
	withoutDocker(t)
	l, talk := kindLab(t, "SM_PROVIDER", "auto")
	l.whole = true
	if err := l.choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.tell("next: mage sm:apps")
	says(t, "the hint", talk.String(), "next: SM_PROVIDER=embedded mage sm:apps")
	chosen, talk := kindLab(t, "SM_PROVIDER", "embedded")
	if err := chosen.choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	chosen.tell("next: mage sm:apps")
	says(t, "the hint to who chose", talk.String(), "next: mage sm:apps")
}

// TestSilentDocker meets an engine that accepts connections and never answers: its problem, soon, and with the choices.
func TestSilentDocker(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	t.Setenv("DOCKER_HOST", "unix://"+path)
	l, _ := kindLab(t)
	start := time.Now()
	err = l.Install(t.Context())
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
	if !problem.Is(err, problem.DockerNotRunning) {
		t.Errorf("got %v", err)
	}
}

// TestDoctorWithoutDocker wants no word of Docker's configuration from the doctor of a lab that does without.
func TestDoctorWithoutDocker(t *testing.T) {
	t.Setenv("DOCKER_HOST", "")
	t.Setenv("DOCKER_CONTEXT", "there-is-no-such-context")
	l, _ := kindLab(t, "SM_PROVIDER", "embedded")
	if err := l.Doctor(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHalfCreated wants a table from a lab whose creation was not finished, and a refusal from what needs it.
func TestHalfCreated(t *testing.T) {
	l, _ := kindLab(t, "SM_PROVIDER", "embedded")
	if err := os.Mkdir(filepath.Join(l.stateDir, "ambient"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := l.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	says(t, "status", l.out.(*buffer).String(), "half-created", "its creation was not finished")
	if err := l.Apps(t.Context(), false); !problem.Is(err, problem.ClusterNone) {
		t.Errorf("apps: %v", err)
	}
}

// stopped makes the remains of a lab that was complete and of which no process lives, as after a restart of the machine.
func stopped(t *testing.T) *Lab {
	t.Helper()
	l, _ := kindLab(t, "SM_PROVIDER", "embedded")
	dir := filepath.Join(l.stateDir, "ambient")
	files := map[string]string{"lab.json": `{"name": "ambient", "workers": 2, "complete": true, "ports": {"kube-apiserver": 1}}`}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "podrunner", "istiod", "metallb-controller"} {
		files["run/"+name+".json"] = `{"pid": 1, "started": "long ago"}`
		files["logs/"+name+".log"] = "the last words of " + name + "\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// TestAfterReboot wants a table that quotes every component, soon, and a refusal from each lesson.
func TestAfterReboot(t *testing.T) {
	l := stopped(t)
	if err := l.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	text := l.out.(*buffer).String()
	says(t, "status", text, "stopped", "the last words of etcd", "the last words of istiod", "the last words of podrunner", "components", "unknown")
	if err := l.Waypoint(t.Context(), false); problem.ExitCode(err) != problem.ClusterStopped.Exit() || !strings.Contains(err.Error(), "the last words of etcd") {
		t.Errorf("waypoint: %v", err)
	}
}

// TestFailureNamesTheDead adds the processes that died to a failure that does not quote them, and once.
func TestFailureNamesTheDead(t *testing.T) {
	l := stopped(t)
	if err := l.choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	late := problem.New(problem.NotReady, nil, "a Deployment is not ready; podrunner ended; its log says:\nthe last words of podrunner")
	err := l.withStopped(late)
	says(t, "the failure", err.Error(), "the last words of istiod")
	if n := strings.Count(err.Error(), "the last words of podrunner"); n != 1 {
		t.Errorf("podrunner is quoted %d times:\n%v", n, err)
	}
	if got := problem.ExitCode(err); got != problem.NotReady.Exit() {
		t.Errorf("exit code %d", got)
	}
	if err := l.withStopped(nil); err != nil {
		t.Errorf("a run that succeeded gives %v", err)
	}
}

// TestTellWebhooks wants every configuration of webhooks named that is not applied as its makers wrote it.
func TestTellWebhooks(t *testing.T) {
	l, talk := kindLab(t, "SM_PROVIDER", "embedded")
	if err := l.choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.embedded = nil // a cluster whose pods run gets them as they are
	l.tellWebhooks(t.Context())
	if text := talk.String(); strings.Contains(text, "webhooks: ") {
		t.Errorf("it says:\n%s", text)
	}
	l, talk = kindLab(t, "SM_PROVIDER", "embedded")
	if err := l.choose(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.tellWebhooks(t.Context())
	says(t, "the note", talk.String(), "metallb-webhook-configuration: 6 of 6 webhooks left out", "istiod-default-validator: called at istiod's address")
}
