package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"ambientlab/internal/command"
)

// TestBinaries wants several programs built in order, each once, with what is still to come said before each.
func TestBinaries(t *testing.T) {
	f := &fakeGo{}
	b := newTest(t, f)
	var mu sync.Mutex
	var said []string
	b.Progress = func(program, message string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, program+": "+message)
	}
	names := []string{"fortio", "go-httpbin"}
	paths, err := b.Binaries(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if filepath.Base(paths[name]) != name || !built(paths[name]) {
			t.Errorf("%s is at %q", name, paths[name])
		}
	}
	if got := strings.Join(said, "\n"); !strings.HasPrefix(got, "fortio: program 1 of 2 to build; about 40 s left") ||
		!strings.Contains(got, "\ngo-httpbin: program 2 of 2 to build; about 10 s left") {
		t.Errorf("it said\n%s", got)
	}
	before := len(f.builds)
	again, err := b.Binaries(t.Context(), names)
	if err != nil || len(f.builds) != before || again["fortio"] != paths["fortio"] {
		t.Errorf("%d builds the second time: %v, %v", len(f.builds)-before, again, err)
	}
	if _, err := b.Binaries(t.Context(), []string{"fortio", "ztunnel"}); !errors.Is(err, ErrUnknownProgram) {
		t.Errorf("an unknown program: %v", err)
	}
}

// TestFetchAhead wants the modules of later programs fetched while the first is compiled, each once, and nothing left
// running when the build fails.
func TestFetchAhead(t *testing.T) {
	b := newTest(t, &fakeGo{})
	for _, module := range []string{"etcd", "coredns", "kubernetes"} {
		copyModule(t, b, module)
	}
	fetched := make(chan string, 3)
	ended := make(chan struct{})
	b.run = func(ctx context.Context, c command.Command) ([]byte, error) {
		switch c.Args[0] {
		case "env":
			return []byte(`{"GOVERSION":"go1.26.0"}`), nil
		case "mod":
			module := filepath.Base(c.Dir)
			fetched <- module
			if module == "coredns" {
				<-ctx.Done() // a slow network
				close(ended)
			}
			return nil, nil
		default: // the first build goes on until the others' modules are on their way
			got := []string{<-fetched, <-fetched}
			if !slices.Equal(got, []string{"kubernetes", "coredns"}) {
				t.Errorf("fetched %v", got)
			}
			return nil, errors.New("out of disk")
		}
	}
	_, err := b.Binaries(t.Context(), []string{"etcd", "kube-apiserver", "kube-scheduler", "coredns"})
	if err == nil || !strings.Contains(err.Error(), "building etcd: out of disk") {
		t.Errorf("the error is %v", err)
	}
	select {
	case <-ended:
	default:
		t.Error("it returned while a download was still running")
	}
}

// copyModule gives a test's Builder a nested module of another name.
func copyModule(t *testing.T, b *Builder, name string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(b.ModulesDir, name), os.DirFS(filepath.Join(b.ModulesDir, "apps"))); err != nil {
		t.Fatal(err)
	}
}
