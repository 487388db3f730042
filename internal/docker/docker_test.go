package docker_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/client"

	"ambientlab/internal/docker"
	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/problem"
)

type home struct{ dir string }

// newHome is a home directory with docker's configuration in it.
func newHome(t *testing.T, current string, contexts map[string]string) home {
	t.Helper()
	h := home{dir: t.TempDir()}
	if current != "" {
		h.write(t, "config.json", fmt.Sprintf(`{"auths":{},"currentContext":%q}`, current))
	}
	for name, host := range contexts {
		h.write(t, filepath.Join("contexts/meta", contextID(name), "meta.json"),
			fmt.Sprintf(`{"Name":%q,"Metadata":{},"Endpoints":{"docker":{"Host":%q,"SkipTLSVerify":false}}}`, name,
				host))
	}
	return h
}

func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

func (h home) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(h.dir, ".docker", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h home) env(vars map[string]string) docker.Env {
	return docker.Env{Home: h.dir, Getenv: func(k string) string { return vars[k] }}
}

func TestResolve(t *testing.T) {
	colima := map[string]string{"colima": "unix:///home/x/.colima/docker.sock"}
	tests := []struct {
		name     string
		current  string
		contexts map[string]string
		env      map[string]string
		want     string
		kind     problem.Kind
		says     string
	}{
		{name: "nothing configured", want: client.DefaultDockerHost},
		{
			name: "DOCKER_HOST wins over all", current: "colima", contexts: colima,
			env: map[string]string{
				"DOCKER_HOST":    "tcp://127.0.0.1:2375",
				"DOCKER_CONTEXT": "colima",
			}, want: "tcp://127.0.0.1:2375",
		},
		{
			name: "DOCKER_CONTEXT wins over the configuration", current: "gone", contexts: colima,
			env: map[string]string{"DOCKER_CONTEXT": "colima"}, want: "unix:///home/x/.colima/docker.sock",
		},
		{name: "the current context", current: "colima", contexts: colima, want: "unix:///home/x/.colima/docker.sock"},
		{name: "the context called default", current: "default", want: client.DefaultDockerHost},
		{
			name: "a context that is gone", current: "gone", kind: problem.DockerNotRunning,
			says: `docker context "gone"`,
		},
		{
			name: "ssh", env: map[string]string{"DOCKER_HOST": "ssh://me@far"}, kind: problem.HostUnsupported,
			says: "over ssh",
		},
		{
			name: "nonsense", env: map[string]string{"DOCKER_HOST": "nonsense"}, kind: problem.DockerNotRunning,
			says: "not valid",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ep, err := docker.Resolve(newHome(t, tt.current, tt.contexts).env(tt.env))
			if tt.says != "" {
				if !problem.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want %s saying %q", err, tt.kind.ID, tt.says)
				}
				return
			}
			if err != nil || ep.Host != tt.want || ep.TLS != nil {
				t.Errorf("got %+v, %v; want host %s without TLS", ep, err, tt.want)
			}
		})
	}
}

func TestResolveTLS(t *testing.T) {
	h := newHome(t, "far", map[string]string{"far": "tcp://far:2376"})
	for _, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		h.write(t, filepath.Join("contexts/tls", contextID("far"), "docker", name), "x")
	}
	ep, err := docker.Resolve(h.env(nil))
	if err != nil || ep.TLS == nil || ep.TLS.CA == "" || ep.TLS.Cert == "" || ep.TLS.Key == "" || ep.TLS.SkipVerify {
		t.Errorf("context with TLS files: %+v, %v", ep, err)
	}
	if _, _, err := docker.New(h.env(nil)); !problem.Is(err, problem.DockerNotRunning) ||
		!strings.Contains(err.Error(), "certificates from PEM file") {
		t.Errorf("New with broken TLS files: %v", err)
	}
	ep, err = docker.Resolve(h.env(map[string]string{
		"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1",
		"DOCKER_CERT_PATH": filepath.Join(h.dir, ".docker/contexts/tls", contextID("far"), "docker"),
	}))
	if err != nil || ep.TLS == nil || ep.TLS.Cert == "" || ep.TLS.SkipVerify {
		t.Errorf("DOCKER_TLS_VERIFY with DOCKER_CERT_PATH: %+v, %v", ep, err)
	}
}

func TestPingNamesTheCause(t *testing.T) {
	dir := t.TempDir()
	api, ep, err := docker.New(docker.Env{Getenv: func(k string) string {
		return map[string]string{"DOCKER_HOST": "unix://" + filepath.Join(dir, "none.sock")}[k]
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.Ping(t.Context(), api, ep); !problem.Is(err, problem.DockerNotRunning) {
		t.Errorf("no socket: %v", err)
	}
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}
	if err := docker.Explain(t.Context(), refused, ep); !problem.Is(err, problem.DockerPermission) {
		t.Errorf("EACCES: %v", err)
	}
	if err := docker.Explain(t.Context(), fmt.Errorf("open: %w", fs.ErrPermission), ep); !problem.Is(err,
		problem.DockerPermission) {
		t.Errorf("permission: %v", err)
	}
	other := errors.New("other")
	if err := docker.Explain(t.Context(), other, ep); !errors.Is(err, other) {
		t.Errorf("another error: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := docker.Explain(ctx, other, ep); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestExec(t *testing.T) {
	e := &dockertest.Engine{Exec: func(name string, command []string) (string, string, int) {
		if command[0] == "false" {
			return "", "it said no\n", 3
		}
		return name + ": " + strings.Join(command, " ") + "\n", "noise", 0
	}}
	e.Add(dockertest.Container{Name: "n1"})
	out, err := docker.Exec(t.Context(), e, "n1", "echo", "hello")
	if err != nil || out != "n1: echo hello\n" {
		t.Errorf("got %q, %v", out, err)
	}
	var failed *docker.ExecError
	_, err = docker.Exec(t.Context(), e, "n1", "false")
	if !errors.As(err, &failed) || failed.Code != 3 || !strings.Contains(err.Error(), "it said no") {
		t.Errorf("got %v, want exit code 3 and what it said", err)
	}
	if _, err := docker.Exec(t.Context(), e, "none", "true"); err == nil ||
		!strings.Contains(err.Error(), "container none") {
		t.Errorf("no such container: %v", err)
	}
}
