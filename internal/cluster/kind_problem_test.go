package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kinderrors "sigs.k8s.io/kind/pkg/errors"
	kindexec "sigs.k8s.io/kind/pkg/exec"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// captured are outputs of docker, kubeadm and nodes, by the problem behind them.
func captured() map[string]problem.Kind {
	return map[string]problem.Kind{
		"port-in-use":         problem.PortInUse,
		"port-in-use-proxy":   problem.PortInUse,
		"too-many-open-files": problem.HostLimits,
		"kubelet-cgroup-v1":   problem.HostUnsupported,
		"disk-full":           problem.HostResources,
		"network-pools":       problem.HostResources,
		"image-pull":          problem.RegistryUnreachable,
		"name-taken":          problem.ClusterCreateFailed,
		"capabilities":        problem.HostUnsupported,
		"daemon-gone":         problem.DockerNotRunning,
		"daemon-refuses":      problem.DockerPermission,
		"unknown-field":       problem.SettingInvalid,
		"unknown":             problem.ClusterCreateFailed,
	}
}

func TestKindFailuresByOutput(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "kind", "*.txt"))
	if err != nil || len(files) != len(captured()) {
		t.Fatalf("%d files, %v; want %d", len(files), err, len(captured()))
	}
	for name, want := range captured() {
		raw, err := os.ReadFile(filepath.Join("testdata", "kind", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		// The same words may be a command's output, or stand in the log of a node that runs, or of one that does not.
		t.Run(name+", from a command", func(t *testing.T) {
			f := newFixture(t)
			failed := kinderrors.Wrap(kinderrors.WithStack(&kindexec.RunError{
				Command: []string{
					"docker",
					"run",
					"--name",
					"ambient-control-plane",
				},
				Output: raw,
				Inner:  errors.New("exit status 125"),
			}), "failed to create")
			err := f.kind.explainCreate(t.Context(), failed)
			expect(t, err, want, lines[len(lines)-1], "docker run --name ambient-control-plane")
		})
		t.Run(name+", from the kubelet", func(t *testing.T) {
			f := newFixture(t)
			f.addNode("ambient-control-plane", 2, 0, true)
			f.engine.Exec = func(string, []string) (string, string, int) { return string(raw), "", 0 }
			expect(
				t, f.kind.explainCreate(t.Context(), errors.New("failed to init node with kubeadm")), want,
				"failed to init node with kubeadm",
			)
		})
		t.Run(name+", from a dead container", func(t *testing.T) {
			f := newFixture(t)
			f.engine.Add(
				dockertest.Container{
					Name:    "ambient-worker",
					Stopped: true,
					Log:     string(raw),
					Labels:  map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.Worker},
				},
			)
			expect(
				t, f.kind.explainCreate(t.Context(), errors.New("could not find a log line")), want,
				"could not find a log line",
			)
		})
	}
}

func expect(t *testing.T, err error, kind problem.Kind, says ...string) {
	t.Helper()
	if !problem.Is(err, kind) {
		t.Errorf("got %v, want %s", err, kind.ID)
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the output is lost: %q is not in %v", want, err)
		}
	}
}

func TestUnknownFailureShowsTheNodesLastWords(t *testing.T) {
	f := newFixture(t)
	f.addNode("ambient-control-plane", 2, 0, true)
	f.engine.Exec = func(string, []string) (string, string, int) {
		text := ""
		for i := range 100 {
			text += fmt.Sprintf("line %d\n", i)
		}
		return text, "", 0
	}
	err := f.kind.explainCreate(t.Context(), errors.New("something new"))
	expect(t, err, problem.ClusterCreateFailed, "something new", "line 99")
	if strings.Contains(err.Error(), "line 10\n") {
		t.Errorf("only the end of a log is wanted: %v", err)
	}
}
