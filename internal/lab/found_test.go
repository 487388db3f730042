package lab

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// withoutDocker makes every request for a Docker engine fail.
func withoutDocker(t *testing.T) {
	t.Helper()
	t.Setenv("DOCKER_HOST", "unix://"+filepath.Join(t.TempDir(), "none.sock"))
}

// embeddedRemains makes the folder of an embedded control plane whose creation was not finished.
func (b bed) embeddedRemains(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(b.StateDir, b.Settings.Cluster), 0o700); err != nil {
		t.Fatal(err)
	}
}

// ownNode is the node of a kind cluster that the lab created.
func ownNode(lab string) engineInMemory {
	return newEngine(nodeContainer(lab, lab+"-control-plane", node.ControlPlane, "172.18.0.2",
		node.Mark{Lab: lab}.MountPoint()))
}

// TestLabIsFoundByItsName wants every target to use the lab where it is, to say so once, and to say nothing of Docker
// where a lab that needs none is found.
func TestLabIsFoundByItsName(t *testing.T) {
	for name, tc := range map[string]struct {
		settings string
		kind     *engineInMemory
		embedded bool
		provider string // "" means that Docker is missed
		found    bool   // and it is said where
	}{
		"nowhere, with Docker":    {kind: engineOf(newEngine()), provider: cluster.ProviderKind},
		"nowhere, without Docker": {},
		"kind":                    {kind: engineOf(ownNode("ambient")), provider: cluster.ProviderKind, found: true},
		"embedded, with Docker": {
			kind: engineOf(newEngine()), embedded: true, provider: cluster.ProviderEmbedded,
			found: true,
		},
		"embedded, without Docker": {embedded: true, provider: cluster.ProviderEmbedded, found: true},
		"a kind cluster of another name": {
			kind: engineOf(ownNode("other")), embedded: true, provider: cluster.ProviderEmbedded, found: true,
		},
		"a kind cluster that the lab did not create": {
			kind: engineOf(newEngine(
				nodeContainer("ambient", "ambient-control-plane", node.ControlPlane, "172.18.0.2"))),
			embedded: true, provider: cluster.ProviderEmbedded, found: true,
		},
		"said to be kind": {
			settings: "SM_PROVIDER=kind", kind: engineOf(newEngine()), embedded: true,
			provider: cluster.ProviderKind,
		},
		"said to be embedded": {
			settings: "SM_PROVIDER=embedded", kind: engineOf(ownNode("ambient")),
			provider: cluster.ProviderEmbedded,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newDesk(t, tc.kind, tc.settings)
			if tc.embedded {
				b.embeddedRemains(t)
			}
			for range 2 { // as sm:lab does
				s, err := session.Open(t.Context(), b.Env, session.MayBeAbsent)
				if tc.provider == "" {
					refused(t, "without a lab", err, problem.DockerNotRunning)
					return
				}
				if err != nil || s.Traits.Name != tc.provider {
					t.Fatalf("got %+v, %v; want %s", s, err, tc.provider)
				}
			}
			want := 0
			if tc.found {
				want = 1
			}
			if n := strings.Count(b.talk.String(), "lab ambient: "); n != want {
				t.Errorf("it is said %d times, not %d:\n%s", n, want, b.talk)
			}
			if strings.Contains(b.talk.String(), "Docker") {
				t.Errorf("it complains about Docker:\n%s", b.talk)
			}
		})
	}
}

func engineOf(engine engineInMemory) *engineInMemory { return &engine }

// TestNameInTwoPlaces wants a name that two labs have refused by every target, with both places, until it is said
// which.
func TestNameInTwoPlaces(t *testing.T) {
	engine := ownNode("ambient")
	b := newDesk(t, &engine)
	b.embeddedRemains(t)
	targets := b.afterInstall()
	targets["install"], targets["delete"], targets["status"] = b.Install, b.Delete, b.Status
	targets["plan"] = func(ctx context.Context) error { return b.Plan(ctx, "install") }
	targets["sm:lab"] = func(ctx context.Context) error { return All(ctx, b.Env) }
	for name, target := range targets {
		refused(t, name, target(t.Context()), problem.NameAmbiguous, "kind cluster ambient",
			"embedded control plane ambient", "SM_PROVIDER=kind", "SM_PROVIDER=embedded")
	}
	if err := b.Doctor(t.Context()); err == nil {
		t.Error("sm:doctor does not notice")
	}
	if gone := engine.Removed(); len(gone) > 0 {
		t.Errorf("removed %v", gone)
	}
	for _, provider := range []string{cluster.ProviderKind, cluster.ProviderEmbedded} {
		chosen := newDesk(t, &engine, "SM_PROVIDER="+provider)
		chosen.embeddedRemains(t)
		if s := chosen.open(t); s.Traits.Name != provider || !s.Info.Exists {
			t.Errorf("SM_PROVIDER=%s gives %+v", provider, s.Info)
		}
	}
}

// TestTwoLabs are of two names, one in kind and one embedded: each is found.
func TestTwoLabs(t *testing.T) {
	engine := ownNode("one")
	for name, provider := range map[string]string{"one": cluster.ProviderKind, "two": cluster.ProviderEmbedded} {
		b := newDesk(t, &engine, "SM_CLUSTER="+name)
		if name == "two" {
			b.embeddedRemains(t)
		}
		if err := b.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
		says(t, "status", b.out.String(), provider+" "+name)
	}
}

// TestKindConfigurationOfAnEmbeddedLab: a lab that is found is not a kind cluster just because a setting is for one.
func TestKindConfigurationOfAnEmbeddedLab(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kind.yaml")
	if err := os.WriteFile(path, []byte("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := newDesk(t, nil, "SM_KIND_CONFIG="+path)
	b.embeddedRemains(t)
	refused(t, "install", b.Install(t.Context()), problem.SettingConflict, "SM_KIND_CONFIG="+path, "embedded")
}

// TestAuto: sm:lab chooses where to create a lab, and uses one that there is.
func TestAuto(t *testing.T) {
	withoutDocker(t)
	b := newBed(t, "SM_PROVIDER=auto")
	if _, err := session.Open(t.Context(), b.Env, session.MayBeAbsent); !problem.Is(err, problem.SettingInvalid) {
		t.Errorf("another target than sm:lab: %v", err)
	}
	b.Env = b.With(true)
	if s := b.open(t); s.Traits.Name != cluster.ProviderEmbedded {
		t.Errorf("without Docker: %s", s.Traits.Name)
	}
	says(t, "the choice", b.talk.String(), "the embedded control plane, because", "SM_PROVIDER=kind")
	engine := newEngine()
	there := newDesk(t, &engine, "SM_PROVIDER=auto")
	there.embeddedRemains(t)
	there.Env = there.With(true)
	if s := there.open(t); s.Traits.Name != cluster.ProviderEmbedded {
		t.Errorf("with an embedded lab of this name: %s", s.Traits.Name)
	}
	says(t, "the choice", there.talk.String(), "lab ambient: embedded control plane ambient")
}

// TestOwnClusterWithoutRecord: a cluster that the lab created, and in which sm:install was killed early, has no lab
// yet.
func TestOwnClusterWithoutRecord(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	b := newBed(t)
	b.UseProvider(found{server: server.URL})
	for name, target := range b.afterInstall() {
		refused(t, name, target(t.Context()), problem.ClusterNone,
			`lab "ambient" is not installed on kind cluster test`, "mage sm:install")
		b.noStep(t)
	}
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
	l := newBed(t)
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
	l := newBed(t, "SM_PROVIDER=embedded")
	if err := l.Doctor(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestDoctorChooses wants the doctor to try pods where there is neither Docker nor a provider in the settings, and to
// say what sm:lab would choose, and why.
func TestDoctorChooses(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///there/is/no/socket")
	l := newBed(t)
	if err := l.Doctor(t.Context()); !problem.Is(err, problem.DockerNotRunning) {
		t.Error(err)
	}
	says(t, "doctor", l.out.String(), "pods can run as processes in network namespaces")
	says(t, "doctor", l.talk.String(), "mage sm:lab would choose the embedded control plane, because no Docker engine")
}

// TestHalfCreated wants a table from a lab whose creation was not finished, and a refusal from what needs it.
func TestHalfCreated(t *testing.T) {
	l := newBed(t, "SM_PROVIDER=embedded")
	l.embeddedRemains(t)
	if err := l.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	says(t, "status", l.out.String(), "half-created", "its creation was not finished")
	if err := l.Apps(t.Context(), false); !problem.Is(err, problem.ClusterNone) {
		t.Errorf("apps: %v", err)
	}
}

// stopped makes the remains of a lab that was complete and of which no process lives, as after a restart of the
// machine.
func stopped(t *testing.T) bed {
	t.Helper()
	l := newBed(t, "SM_PROVIDER=embedded")
	dir := filepath.Join(l.StateDir, "ambient")
	files := map[string]string{
		"lab.json": `{"name": "ambient", "workers": 2, "complete": true, "ports": {"kube-apiserver": 1}}`,
	}
	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "podrunner",
		"istiod", "metallb-controller",
	} {
		files["run/"+name+".json"] = `{"pid": 1, "started": "long ago"}`
		files["logs/"+name+".log"] = "the last words of " + name + "\n"
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700),
			os.WriteFile(path, []byte(text), 0o600)); err != nil {
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
	text := l.out.String()
	says(t, "status", text, "stopped", "the last words of etcd", "the last words of istiod",
		"the last words of podrunner", "components", "unknown")
	if err := l.Waypoint(t.Context(), false); problem.ExitCode(err) != problem.ClusterStopped.Exit() ||
		!strings.Contains(err.Error(), "the last words of etcd") {
		t.Errorf("waypoint: %v", err)
	}
}

// TestFailureNamesStoppedProcesses adds the processes that ended to a failure that does not quote them, and once.
func TestFailureNamesStoppedProcesses(t *testing.T) {
	s := stopped(t).open(t)
	late := problem.New(problem.NotReady, nil,
		"a Deployment is not ready; podrunner ended; its log says:\nthe last words of podrunner")
	failing := func(err error) error {
		_, err = s.Apply(t.Context(),
			engine.Plan{
				Name:  "p",
				Steps: []engine.Step{{ID: "s", Title: "S", Do: func(context.Context) error { return err }}},
			})
		return err
	}
	err := failing(late)
	says(t, "the failure", err.Error(), "the last words of istiod")
	if n := strings.Count(err.Error(), "the last words of podrunner"); n != 1 {
		t.Errorf("podrunner is quoted %d times:\n%v", n, err)
	}
	if got := problem.ExitCode(err); got != problem.NotReady.Exit() {
		t.Errorf("exit code %d", got)
	}
	if err := failing(nil); err != nil {
		t.Errorf("a run that succeeded gives %v", err)
	}
}
