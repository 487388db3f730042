//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// binary is the compiled magefile: what `mage` itself builds and runs, made once.
var binary string

func TestMain(m *testing.M) {
	code, err := func() (int, error) {
		if os.Getenv("SM_BUNDLE") == "" {
			return 1, errors.New("SM_BUNDLE is not set; run `make e2e`, which builds the source bundle and sets it")
		}
		dir, err := os.MkdirTemp("", "ambientlab-e2e-")
		if err != nil {
			return 1, err
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "lab")
		root, err := filepath.Abs("../..")
		if err != nil {
			return 1, err
		}
		compile := exec.Command("go", "tool", "mage", "-compile", binary)
		compile.Dir = root
		if out, err := compile.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("compiling the magefile: %w\n%s", err, out)
		}
		return m.Run(), nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
	os.Exit(code)
}

// lab is one lab under test: its name, its own kubeconfig, its environment.
type lab struct {
	name       string
	kubeconfig string
	env        []string
	docker     *client.Client
}

// result is what a target printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
}

func newLab(t *testing.T, name string, env ...string) *lab {
	t.Helper()
	api, endpoint, err := docker.New(docker.SystemEnv())
	if err != nil {
		t.Fatal(err)
	}
	if err := docker.Ping(t.Context(), api, endpoint); err != nil {
		t.Fatalf("these tests need a Docker engine: %v", err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	env = append([]string{"SM_CLUSTER=" + name, "KUBECONFIG=" + kubeconfig, "SM_OUTPUT=plain"}, env...)
	return &lab{name: name, kubeconfig: kubeconfig, env: env, docker: api}
}

// command prepares a target without starting it.
func (l *lab) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), l.env...)
	return cmd
}

// try runs a target and returns how it ended. What it says is in the test's log as it happens.
func (l *lab) try(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := l.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = &stdout, io.MultiWriter(&stderr, os.Stderr)
	start := time.Now()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %v: %v", args, err)
	}
	r := result{
		stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode(),
		took: time.Since(start),
	}
	t.Logf("%s: exit %d after %s", strings.Join(args, " "), r.code, r.took.Round(100*time.Millisecond))
	return r
}

// mage runs a target that must succeed.
func (l *lab) mage(t *testing.T, args ...string) result {
	t.Helper()
	return l.succeeded(t, args, l.try(t, args...))
}

func (l *lab) succeeded(t *testing.T, args []string, r result) result {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("%v ended with %d\nstdout:\n%s", args, r.code, r.stdout)
	}
	return r
}

// verified runs sm:verify, which must succeed. Where the machine is so busy that it decides too little, it is run
// again, as its advice says: at most three times.
func (l *lab) verified(t *testing.T, args ...string) result {
	t.Helper()
	args = append([]string{"sm:verify"}, args...)
	for range 2 {
		if r := l.try(t, args...); r.code != problem.ClaimInconclusive.Exit() {
			return l.succeeded(t, args, r)
		}
	}
	return l.mage(t, args...)
}

func (l *lab) kube(t *testing.T) (kubernetes.Interface, dynamic.Interface) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return kube, objects
}

// get asks the gateway's load-balancer address from this host.
func get(t *testing.T, method, address, path string) (status int, body string, took time.Duration) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "appb.opssec.in"
	start := time.Now()
	response, err := (&http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil},
	}).Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, strings.TrimSpace(string(raw)), time.Since(start)
}

// address gives an object's first status address.
func address(object *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "addresses")
	if len(list) == 0 {
		return ""
	}
	first, _ := list[0].(map[string]any)
	value, _, _ := unstructured.NestedString(first, "value")
	return value
}
