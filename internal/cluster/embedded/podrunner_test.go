package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/problem"
)

// TestHelp says what helps by what failed and what the system shows.
func TestHelp(t *testing.T) {
	clone := trialResult{"namespaces", "clone(CLONE_NEWUSER|CLONE_NEWPID|CLONE_NEWNS): operation not permitted"}
	full := trialResult{"bridge", "unshare(CLONE_NEWNET|CLONE_NEWUTS): no space left on device"}
	const kernel, user = "/proc/sys/kernel/", "/proc/sys/user/"
	for name, c := range map[string]struct {
		result     trialResult
		file, text string
		says       string
	}{
		"no user namespaces":    {full, user + "max_user_namespaces", "0\n", "user.max_user_namespaces is 0"},
		"no network namespaces": {full, user + "max_net_namespaces", "0", "user.max_net_namespaces is 0"},
		"a limit is reached":    {full, "", "", "user.max_*_namespaces"},
		"Debian":                {clone, kernel + "unprivileged_userns_clone", "0", "unprivileged_userns_clone is 0"},
		"Ubuntu": {
			clone, kernel + "apparmor_restrict_unprivileged_userns", "1",
			"kernel.apparmor_restrict_unprivileged_userns to 0",
		},
		"a container":             {clone, "/proc/self/status", "Name:\tx\nSeccomp:\t2\n", "seccomp=unconfined"},
		"nothing is known":        {clone, "/proc/self/status", "Seccomp:\t0\n", "as root"},
		"the kernel lacks a part": {trialResult{"netfilter rules", "operation not supported"}, "", "", "nf_tables"},
	} {
		read := func(path string) ([]byte, error) {
			if path == c.file {
				return []byte(c.text), nil
			}
			return nil, errors.New("no such file")
		}
		if got := help(c.result, read); !strings.Contains(got, c.says) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// unbuilt has a program's place, and nothing there.
type unbuilt struct {
	Programs
	path  string
	envoy bool
}

func (u unbuilt) Path(context.Context, string) (string, error) { return u.path, nil }

func (u unbuilt) HasEnvoy() bool { return u.envoy }

// TestTryPodsBeforeTheFirstInstall tries namespaces without the pod runner: it says what was tried, or what helps.
func TestTryPodsBeforeTheFirstInstall(t *testing.T) {
	e := plain(t)
	e.opts.Packets = PacketsAuto
	e.opts.Programs = func(func(string, string)) (Programs, error) {
		return unbuilt{path: filepath.Join(t.TempDir(), "podrunner")}, nil
	}
	seen, err := e.TryPods(t.Context())
	var known *problem.Problem
	switch {
	case err == nil && strings.Contains(seen, "the rest is tried when sm:install"):
	case errors.As(err, &known) && known.ID == problem.HostUnsupported.ID && len(known.Advice) > 0:
	default:
		t.Errorf("%q, %v", seen, err)
	}
}

// TestTryPodsWithoutPython asks for python3 only where Envoy still has to be fetched.
func TestTryPodsWithoutPython(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, envoy := range []bool{false, true} {
		e := plain(t)
		e.opts.Packets = PacketsAuto
		e.opts.Programs = func(func(string, string)) (Programs, error) {
			return unbuilt{path: filepath.Join(t.TempDir(), "podrunner"), envoy: envoy}, nil
		}
		_, err := e.TryPods(t.Context())
		asked := err != nil && strings.Contains(err.Error(), "python3")
		if asked && envoy || err == nil && !envoy {
			t.Errorf("Envoy fetched: %t: %v", envoy, err)
		}
	}
}

// TestRunsPodsOf tells workloads whose pods run from those that are simulated.
func TestRunsPodsOf(t *testing.T) {
	workload := func(image string, hostNetwork bool) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"template": map[string]any{"spec": map[string]any{
				"hostNetwork": hostNetwork, "containers": []any{map[string]any{"name": "c", "image": image}},
			}}},
		}}
	}
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, packets := range []bool{true, false} {
		s.Packets = packets
		if err := e.save(s); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			image string
			host  bool
			runs  bool
		}{
			{"docker.io/istio/ztunnel:1.31.4-distroless", false, true},
			{"fortio/fortio:1.75.3", false, true},
			{"fortio/fortio:1.75.3", true, false},
			{"docker.io/istio/install-cni:1.31.4-distroless", false, false},
			{"docker.io/prom/prometheus:v3.10.0", false, false}, // an add-on that was not asked for
			{"quay.io/metallb/speaker:v0.16.1", true, false},
		} {
			if got := e.runsPodsOf(workload(c.image, c.host)); got != (c.runs && packets) {
				t.Errorf("packets %v, %s, host network %v: runs %v", packets, c.image, c.host, got)
			}
		}
	}
}

// TestOtherVersion deletes the processes of a lab that another version of this package created, with other components,
// and refuses to start such a lab.
func TestOtherVersion(t *testing.T) {
	e := plain(t)
	if err := e.ensure(t.Context(), shell(e, "kwok", "exec sleep 60"), always); err != nil {
		t.Fatal(err)
	}
	known, err := e.record("kwok")
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	s.Complete = true
	if err := errors.Join(e.save(s), os.Remove(e.pki(podRunner+".crt"))); err != nil {
		t.Fatal(err)
	}
	fakePrograms(e, program)
	if err := e.Create(t.Context()); !problem.Is(err, problem.NotReady) {
		t.Errorf("it was started: %v", err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if known.alive() {
		t.Error("a process is left")
	}
}
