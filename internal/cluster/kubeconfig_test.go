package cluster

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"

	"ambientlab/internal/problem"
)

func immediately(time.Duration) <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}

func entries(name, server string) *api.Config {
	cfg := api.NewConfig()
	cfg.Clusters[name] = &api.Cluster{Server: server}
	cfg.AuthInfos[name] = &api.AuthInfo{Token: "secret"}
	cfg.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	return cfg
}

func TestKubeconfigPaths(t *testing.T) {
	sep := string(os.PathListSeparator)
	got := kubeconfigPaths(strings.Join([]string{"/a", "", "/b", "/a"}, sep))
	if len(got) != 2 || got[0] != "/a" || got[1] != "/b" {
		t.Errorf("got %v", got)
	}
	if got := kubeconfigPaths(""); len(got) != 1 || got[0] != clientcmd.RecommendedHomeFile {
		t.Errorf("got %v", got)
	}
}

func TestKubeconfigGoesWhereKubectlPutsIt(t *testing.T) {
	dir := t.TempDir()
	first, second, third := filepath.Join(dir, "first"), filepath.Join(dir, "sub", "second"),
		filepath.Join(dir, "third")
	file := Kubeconfig{paths: []string{first, second, third}, after: immediately}
	changed, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent)
	if err != nil || changed != third {
		t.Fatalf("none exists: wrote %s, %v; want the last", changed, err)
	}
	if changed, err = file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent); err != nil ||
		changed != "" {
		t.Errorf("nothing new: wrote %q, %v", changed, err)
	}
	if err := os.WriteFile(first, []byte(minesOnly), 0o644); err != nil {
		t.Fatal(err)
	}
	if changed, err = file.merge(t.Context(), entries("kind-a", "https://b"), "kind-a", keepCurrent); err != nil ||
		changed != third {
		t.Errorf("the third has the context: wrote %s, %v", changed, err)
	}
	if changed, err = file.merge(t.Context(), entries("kind-b", "https://b"), "kind-b", keepCurrent); err != nil ||
		changed != first {
		t.Errorf("a new context: wrote %s, %v; want the first that exists", changed, err)
	}
	if cfg, err := clientcmd.LoadFromFile(first); err != nil || cfg.CurrentContext != "mine" || len(cfg.Contexts) != 2 {
		t.Errorf("first: %+v, %v", cfg, err)
	}
	if err := file.Unlink(t.Context(), "kind-a"); err != nil {
		t.Fatal(err)
	}
	if cfg, err := clientcmd.LoadFromFile(third); err != nil || cfg.CurrentContext != "" ||
		len(cfg.Contexts)+len(cfg.Clusters)+len(cfg.AuthInfos) != 0 {
		t.Errorf("third after remove: %+v, %v", cfg, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.lock"))
	if err != nil || len(left) != 0 {
		t.Errorf("locks left: %v, %v", left, err)
	}
}

func TestKubeconfigBehindALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte(minesOnly), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	file := Kubeconfig{paths: []string{link}, after: immediately}
	if _, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent); err != nil {
		t.Fatal(err)
	}
	if stat, err := os.Lstat(link); err != nil || stat.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", stat, err)
	}
	if cfg, err := clientcmd.LoadFromFile(real); err != nil || cfg.CurrentContext != "kind-a" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestKubeconfigLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tries := 0
	file := Kubeconfig{paths: []string{path}, after: func(d time.Duration) <-chan time.Time {
		tries++
		return immediately(d)
	}}
	_, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent)
	if !problem.Is(err, problem.KubeconfigInvalid) || tries != kubeconfigLockTries ||
		!strings.Contains(problem.All(err)[0].Advice[0], path+".lock") {
		t.Errorf("a lock that was left over: %v after %d tries", err, tries)
	}
	file.after = func(d time.Duration) <-chan time.Time {
		if err := os.Remove(path + ".lock"); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return immediately(d)
	}
	if _, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent); err != nil {
		t.Errorf("a lock that another gives up: %v", err)
	}
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file.after = func(time.Duration) <-chan time.Time { return nil }
	if err := file.Unlink(ctx, "kind-a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestKubeconfigThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := Kubeconfig{paths: []string{path}, after: immediately}
	_, err := file.merge(t.Context(), entries("kind-a", "https://a"), "kind-a", setCurrent)
	if !problem.Is(err, problem.KubeconfigInvalid) {
		t.Errorf("got %v", err)
	}
	if raw, err := os.ReadFile(path); err != nil || string(raw) != "{" {
		t.Errorf("it was overwritten: %s, %v", raw, err)
	}
}
