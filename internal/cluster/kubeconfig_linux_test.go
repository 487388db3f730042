package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/problem"
)

// mounted bind-mounts a kubeconfig as a container would: rename cannot replace it.
func mounted(t *testing.T, flags uintptr) (path string) {
	t.Helper()
	source, path := filepath.Join(t.TempDir(), "source"), filepath.Join(t.TempDir(), "config")
	for _, name := range []string{source, path} {
		if err := os.WriteFile(name, []byte(minesOnly), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("a bind mount needs root and CAP_SYS_ADMIN: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, 0); err != nil {
			t.Error(err)
		}
	})
	if flags != 0 {
		if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(source, path); err == nil {
		t.Fatal("the mount point was replaced")
	}
	return path
}

func TestKubeconfigThatIsAMountPoint(t *testing.T) {
	path := mounted(t, 0)
	file := Kubeconfig{paths: []string{path}, after: immediately}
	if err := file.Check(t.Context(), "kind-a"); err != nil {
		t.Error(err)
	}
	if changed, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent); err != nil ||
		changed != path {
		t.Fatalf("wrote %q, %v", changed, err)
	}
	if cfg, err := clientcmd.LoadFromFile(path); err != nil || cfg.CurrentContext != "kind-a" ||
		len(cfg.Contexts) != 2 {
		t.Errorf("%+v, %v", cfg, err)
	}
	// The new content is shorter.
	if err := file.Unlink(t.Context(), "kind-a"); err != nil {
		t.Fatal(err)
	}
	if cfg, err := clientcmd.LoadFromFile(path); err != nil || cfg.CurrentContext != "" || len(cfg.Contexts) != 1 {
		t.Errorf("%+v, %v", cfg, err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left next to it: %v, %v", files, err)
	}
}

// TestKubeconfigReadOnly: what cannot be written is refused before the cluster is made.
func TestKubeconfigReadOnly(t *testing.T) {
	path := mounted(t, unix.MS_RDONLY)
	f := newFixture(t)
	f.kind.opts.Kubeconfig = path
	err := f.kind.Create(t.Context())
	if !problem.Is(err, problem.KubeconfigInvalid) || !strings.Contains(err.Error(), path+" cannot be written") ||
		f.lib.calls != 0 {
		t.Errorf("got %v, kind called %d times", err, f.lib.calls)
	}
}
