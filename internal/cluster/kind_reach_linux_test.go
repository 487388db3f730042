package cluster

import (
	"encoding/base64"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// inNamespace runs f in a network namespace that has a loopback interface of its own and nothing else, as a container
// has.
func inNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and no unlocking: the thread ends with this goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Logf("a network namespace needs root: %v", err)
			return
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Logf("ip: %v\n%s", err, out)
			return
		}
		f(t)
		done <- true
	}()
	if !<-done && !t.Failed() {
		t.Skip("a network namespace needs root and the command ip")
	}
}

// publishedKind is kind's library for a cluster whose API server is published at an address.
type publishedKind struct {
	fakeKind
	address   string
	authority []byte
}

func (k *publishedKind) KubeConfig(name string, _ bool) (string, error) {
	return fmt.Sprintf(
		`{"apiVersion":"v1","kind":"Config","current-context":"kind-%[1]s","contexts":[{"name":"kind-%[1]s",`+
			`"context":{"cluster":"kind-%[1]s","user":"kind-%[1]s"}}],"clusters":[{"name":"kind-%[1]s",`+
			`"cluster":{"server":"https://%[2]s","certificate-authority-data":%[3]q}}],"users":[{"name":"kind-%[1]s",`+
			`"user":{"token":"secret"}}]}`,
		name,
		k.address,
		base64.StdEncoding.EncodeToString(k.authority),
	), nil
}

var _ library = (*publishedKind)(nil)

// TestReachFromNamespace runs the lab's part of a create in a network namespace: the API server is published on the
// loopback address of another one, as for a job in a container that uses the host's Docker engine.
func TestReachFromNamespace(t *testing.T) {
	authority, published := apiServer(t, "127.0.0.1:0")
	setup := func(t *testing.T) *fixture {
		f := newFixture(t)
		f.kind.greet = greet
		f.lib.create = func() error {
			f.engine.Add(dockertest.Container{
				Name:    "ambient-control-plane",
				Network: "kind",
				IP:      "127.0.0.2",
				Mounts:  []string{node.Mark{Lab: "ambient"}.MountPoint()},
				Labels:  map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.ControlPlane},
			})
			return nil
		}
		f.engine.Exec = func(string, []string) (string, string, int) { return "ok", "", 0 }
		f.kind.library = func(*progressLog) library {
			return &publishedKind{
				fakeKind: fakeKind{f: f, create: f.lib.create}, address: published,
				authority: authority,
			}
		}
		return f
	}
	t.Run("the same namespace", func(t *testing.T) {
		f := setup(t)
		if err := f.kind.Create(t.Context()); err != nil {
			t.Fatal(err)
		}
		if info := f.state(Ready); info.Server != "https://"+published {
			t.Errorf("the server is %s", info.Server)
		}
	})
	t.Run("no route to the node", func(t *testing.T) {
		f := setup(t)
		inNamespace(t, func(t *testing.T) {
			// kind's library is called on another thread, which stays in the first namespace: it dials nothing.
			err := f.kind.Create(t.Context())
			if !problem.Is(err, problem.APIServerElsewhere) || !strings.Contains(err.Error(), published) {
				t.Errorf("got %v", err)
			}
		})
		f.untouched()
	})
	t.Run("a route to the node", func(t *testing.T) {
		f := setup(t)
		inNamespace(t, func(t *testing.T) {
			own, _ := apiServer(t, net.JoinHostPort("127.0.0.2", node.APIServerPort))
			authority = append(own, authority...)
			if err := f.kind.Create(t.Context()); err != nil {
				t.Error(err)
				return
			}
			if info := f.state(Ready); info.Server != "https://127.0.0.2:6443" {
				t.Errorf("the server is %s", info.Server)
			}
		})
	})
}
