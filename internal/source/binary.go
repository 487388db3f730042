package source

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/command"
	"ambientlab/internal/filelock"
)

// ErrUnknownProgram is wrapped by Binary's error if no program has the name.
var ErrUnknownProgram = errors.New("no such program")

// Binary builds a program of [Programs], or finds it built from the same inputs, and returns its path. The file has the
// name of the program. An error of the go command has its output, and the command in a form that a user can run.
func (b *Builder) Binary(ctx context.Context, name string) (string, error) {
	p, err := known(name)
	if err != nil {
		return "", err
	}
	path, err := b.path(ctx, p)
	if err != nil {
		return "", err
	}
	if built(path) {
		touch(path)
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	// One compilation at a time on the whole machine: a Go build uses every core, and two builds at once would compile
	// their common packages twice.
	lock, err := filelock.Wait(ctx, filepath.Join(b.programs(), "build.lock"), func() {
		b.Progress(name, "waiting for another build to end")
	})
	if err != nil {
		return "", fmt.Errorf("waiting to build %s: %w", name, err)
	}
	defer lock.Unlock()
	if built(path) {
		return path, nil
	}
	if err := b.compile(ctx, p, path); err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	prune(path)
	return path, nil
}

// Path is where Binary puts a program of [Programs] that is built from the current sources, whether it exists or not.
// So a caller can tell that a running program is older. It builds nothing.
func (b *Builder) Path(ctx context.Context, name string) (string, error) {
	p, err := known(name)
	if err != nil {
		return "", err
	}
	return b.path(ctx, p)
}

func (b *Builder) path(ctx context.Context, p Program) (string, error) {
	key, err := b.key(ctx, p)
	if err != nil {
		return "", fmt.Errorf("building %s: %w", p.Name, err)
	}
	path := filepath.Join(b.programs(), p.Name, key, p.Name)
	if b.goos == "windows" {
		path += ".exe"
	}
	return path, nil
}

// programs is the folder of all built programs.
func (b *Builder) programs() string { return filepath.Join(b.CacheDir, "bin", b.goos+"-"+b.goarch) }

// known finds a program by its name.
func known(name string) (Program, error) {
	p, ok := program(name)
	if !ok {
		var names []string
		for _, p := range Programs() {
			names = append(names, p.Name)
		}
		return Program{}, fmt.Errorf("%w: %q; there are %s", ErrUnknownProgram, name, strings.Join(names, ", "))
	}
	return p, nil
}

// built tells whether path holds a program. A program is moved there when it is complete.
func built(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (b *Builder) compile(ctx context.Context, p Program, path string) error {
	b.Progress(p.Name, fmt.Sprintf(
		"compiling, about %s cold on 2 cores, less where Go's build cache knows its packages", roundly(p.Cold)))
	start := time.Now()
	// What a killed build left: the lock says that no other build runs.
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "build-*")); err == nil {
		for _, dir := range left {
			_ = os.RemoveAll(dir)
		}
	}
	dir, err := os.MkdirTemp(filepath.Dir(path), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, filepath.Base(path))
	args := append([]string{"build"}, buildFlags(p)...)
	if len(edits(p.Name)) > 0 {
		flag, err := b.edited(ctx, p, dir)
		if err != nil {
			return err
		}
		args = append(args, flag)
	}
	args = append(args, "-o", out, p.Package)
	// The go command does not handle signals while it builds (cmd/go, internal/base/signal.go, is for go run and go
	// test), so an interrupted build leaves its temporary folder. GOTMPDIR puts it into a folder that is removed here.
	env := slices.Concat(b.environment(), command.GoBuild(), []string{"GOTMPDIR=" + dir})
	if _, err := b.run(ctx, command.Command{Dir: b.moduleFolder(p), Env: env, Name: "go", Args: args}); err != nil {
		return err
	}
	if err := os.Rename(out, path); err != nil {
		return err
	}
	b.Progress(p.Name, fmt.Sprintf("built in %s", roundly(time.Since(start))))
	return nil
}

// buildFlags are the same for every program except for its variables, so that a package is compiled once for all
// programs. They do not stamp the revision of the checkout: a commit to the lab's README would change a program.
func buildFlags(p Program) []string {
	flags := []string{
		"-mod=readonly", "-trimpath", "-buildvcs=false", "-tags=" + buildTags,
		"-ldflags=" + p.linkFlags(),
	}
	// No debug information: the linker drops it anyway (see linkFlags). The lab itself, which shares hundreds of
	// packages, is compiled with the same flag (internal/mage).
	flags = append(flags, "-gcflags=all=-dwarf=false")
	for _, pattern := range notInlined() {
		flags = append(flags, "-gcflags="+pattern+"=-dwarf=false -l")
	}
	return flags
}

// buildTags leave out what no program uses. disable_pgv: the validation of Envoy's protocol messages, a third of what
// there is to compile of them; Istio's own builds set it too (STANDARD_TAGS in its Makefile.core.mk). The lab itself is
// compiled with the same tag, since it shares those packages.
const buildTags = "disable_pgv"

// notInlined are patterns of packages that are compiled without inlining, since that is where the compiler's time goes
// and not where a program's time goes. istiod's are mostly generic code (krt), compiled again in every package that
// uses it: 193 instead of 268 seconds of processor time. client-go's informers, listers and fakes, of which programs
// link few: 72 instead of 91. Kubernetes' types and their conversions: 39 instead of 65. What requests to the API
// server and etcd spend their time in, apiserver, apimachinery and etcd itself, is inlined as ever. None of these
// packages is part of the lab itself, which would otherwise compile them a second time.
func notInlined() []string {
	return []string{
		"istio.io/istio/pilot/...", "istio.io/istio/pkg/...", "istio.io/istio/security/...",
		"k8s.io/client-go/informers/...", "k8s.io/client-go/listers/...",
		"k8s.io/client-go/kubernetes/fake", "k8s.io/client-go/kubernetes/typed/.../fake",
		"k8s.io/kubernetes/pkg/apis/...", "k8s.io/kubernetes/pkg/generated/...",
	}
}

func (b *Builder) environment() []string {
	return []string{"CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOWORK=off", "GOOS=" + b.goos, "GOARCH=" + b.goarch}
}

func (b *Builder) moduleFolder(p Program) string { return filepath.Join(b.ModulesDir, p.Module) }

// key identifies the inputs of a program's build: Go's version and the settings that change code, the flags, and every
// file of the nested module. Its go.sum identifies everything outside of the module.
func (b *Builder) key(ctx context.Context, p Program) (string, error) {
	toolchain, err := b.toolchainOf(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	fmt.Fprintln(sum, toolchain, b.environment(), buildFlags(p), p.Package)
	if changes := edits(p.Name); len(changes) > 0 {
		fmt.Fprintf(sum, "%q\n", changes)
	}
	if err := hashFolder(sum, b.moduleFolder(p)); err != nil {
		return "", fmt.Errorf("reading its sources: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// toolchainOf asks the go command for its version and settings.
func (b *Builder) toolchainOf(ctx context.Context) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.toolchain != "" {
		return b.toolchain, nil
	}
	out, err := b.run(ctx, command.Command{
		Dir: b.ModulesDir, Env: b.environment(), Name: "go",
		Args: []string{"env", "-json", "GOVERSION", "GOEXPERIMENT", "GOAMD64", "GOARM64", "GOFIPS140"},
	})
	if err != nil {
		return "", fmt.Errorf("asking for Go's version: %w", err)
	}
	// Decoded and encoded again: the order of the answer does not matter then.
	var settings map[string]string
	if err := json.Unmarshal(out, &settings); err != nil {
		return "", fmt.Errorf("asking for Go's version: %w", err)
	}
	canonical, err := json.Marshal(settings)
	if err != nil {
		return "", err
	}
	b.toolchain = string(canonical)
	return b.toolchain, nil
}

// hashFolder adds the names and contents of a folder's files, without tests and hidden files.
func hashFolder(sum io.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if path != dir && (strings.HasPrefix(name, ".") || name == "testdata") {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum, "%s %x\n", filepath.ToSlash(rel), sha256.Sum256(content))
		return err
	})
}

// roundly formats a duration in seconds or minutes.
func roundly(d time.Duration) string {
	if d >= 2*time.Minute {
		return fmt.Sprintf("%.1f min", d.Minutes())
	}
	return fmt.Sprintf("%.0f s", d.Seconds())
}
