package apply

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"ambientlab/internal/source"
)

// controlPlane is a real etcd, API server and controller manager, without any node. It is started once for the whole
// package.
type controlPlane struct {
	config *rest.Config
	stop   func()
}

// sharedControlPlane starts the control plane when the first test asks for it.
var sharedControlPlane = sync.OnceValues(startControlPlane)

// binaries gives a folder with the control plane's programs: the one that envtest's own variable names, or else one
// with what the bundle's builder makes from source.
func binaries(ctx context.Context, dir string) (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		return assets, nil
	}
	builder, err := source.New(source.Options{})
	if err != nil {
		return "", err
	}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager"} {
		path, err := builder.Binary(ctx, name)
		if err != nil {
			return "", err
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func startControlPlane() (plane *controlPlane, err error) {
	dir, err := os.MkdirTemp("", "apply-test-")
	if err != nil {
		return nil, err
	}
	var undo []func()
	defer func() {
		if err != nil {
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	undo = append(undo, func() { _ = os.RemoveAll(dir) })
	assets, err := binaries(context.Background(), dir)
	if err != nil {
		return nil, err
	}
	env := &envtest.Environment{BinaryAssetsDirectory: assets, ControlPlaneStopTimeout: 20 * time.Second}
	undo = append(undo, func() { _ = env.Stop() })
	if _, err := env.Start(); err != nil {
		return nil, err
	}
	admin, err := env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return nil, err
	}
	text, err := admin.KubeConfig()
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(kubeconfig, text, 0o600); err != nil {
		return nil, err
	}
	manager := exec.Command(filepath.Join(assets, "kube-controller-manager"),
		"--kubeconfig="+kubeconfig, "--leader-elect=false", "--secure-port=0", "--v=0")
	manager.SysProcAttr = withParent()
	if err := manager.Start(); err != nil {
		return nil, err
	}
	undo = append(undo, func() {
		_ = manager.Process.Kill()
		_ = manager.Wait()
	})
	return &controlPlane{config: admin.Config(), stop: func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}}, nil
}

func TestMain(m *testing.M) {
	// envtest's processes are in groups of their own, which Ctrl-C does not reach.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		stopControlPlane()
		os.Exit(1)
	}()
	code := m.Run()
	stopControlPlane()
	os.Exit(code)
}

func stopControlPlane() {
	if !started.Load() {
		return
	}
	if plane, err := sharedControlPlane(); err == nil {
		plane.stop()
	}
}

// started is set once a test has asked for the control plane.
var started atomic.Bool

// cluster gives a client for a lab of the test's own on the real API server.
func cluster(t *testing.T, lab string) *Client {
	t.Helper()
	started.Store(true)
	plane, err := sharedControlPlane()
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(plane.config, lab, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
