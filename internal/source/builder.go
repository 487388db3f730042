package source

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"ambientlab/internal/command"
	"ambientlab/internal/source/debian"
)

// Options are a Builder's settings; the zero value is what a lab uses.
type Options struct {
	// CacheDir is where built programs and fetched files are kept; ambientlab/source in the user's cache
	// folder unless given.
	CacheDir string
	// ModulesDir is the folder of the nested modules; unless given, internal/source/modules of the main
	// module that the working directory lies in.
	ModulesDir string
	// GOOS and GOARCH are what Binary builds for, the machine it runs on unless given. Images are always for
	// Linux.
	GOOS, GOARCH string
	// Refresh looks for newer Debian packages although the cache holds some.
	Refresh bool
	// Progress hears what is being done, one line at a time. It may be called from several goroutines.
	Progress func(component, message string)
}

// Builder builds programs and images. It is safe for concurrent use, by several processes too.
type Builder struct {
	CacheDir   string
	ModulesDir string
	Progress   func(component, message string)

	goos, goarch string
	refresh      bool
	run          command.Runner
	mu           sync.Mutex
	toolchain    string            // what key has learned of the Go toolchain
	folders      map[string]string // what ModuleDir has found
}

// New returns a Builder. It fails where there is no user's cache folder, or no folder of nested modules.
func New(opts Options) (*Builder, error) {
	b := &Builder{
		CacheDir: opts.CacheDir, ModulesDir: opts.ModulesDir, Progress: opts.Progress,
		goos: opts.GOOS, goarch: opts.GOARCH, refresh: opts.Refresh,
		run: command.Run, folders: map[string]string{},
	}
	if b.Progress == nil {
		b.Progress = func(string, string) {}
	}
	if b.goos == "" {
		b.goos = runtime.GOOS
	}
	if b.goarch == "" {
		b.goarch = runtime.GOARCH
	}
	if b.CacheDir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding the cache folder: %w", err)
		}
		b.CacheDir = filepath.Join(cache, "ambientlab", "source")
	}
	if b.ModulesDir == "" {
		dir, err := mainModule(context.Background(), b.run)
		if err != nil {
			return nil, err
		}
		b.ModulesDir = filepath.Join(dir, "internal", "source", "modules")
	}
	if _, err := os.Stat(b.ModulesDir); err != nil {
		return nil, fmt.Errorf("looking for the modules to build from: %w", err)
	}
	return b, nil
}

// mainModule is the folder of the main module around the working directory.
func mainModule(ctx context.Context, run command.Runner) (string, error) {
	out, err := run(ctx, command.Command{Name: "go", Args: []string{"list", "-m", "-json", "ambientlab"}, Env: []string{"GOWORK=off"}})
	if err != nil {
		return "", fmt.Errorf("finding the project's folder (building from source needs its checkout): %w", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil || module.Dir == "" {
		return "", fmt.Errorf("finding the project's folder: go list gave no folder: %w", err)
	}
	return module.Dir, nil
}

// ModuleDir is the folder, read-only in Go's module cache, of a module that the nested module pins; it is
// fetched and checked against go.sum where it is not there yet. Files that are part of an upstream project
// without being Go code, such as Envoy's bootstrap template, are read from there.
func (b *Builder) ModuleDir(ctx context.Context, nested, module string) (string, error) {
	id := nested + " " + module
	b.mu.Lock()
	dir, ok := b.folders[id]
	b.mu.Unlock()
	if ok {
		return dir, nil
	}
	// The download is what checks go.sum; it prints the folder as go list would.
	out, err := b.run(ctx, command.Command{
		Dir: filepath.Join(b.ModulesDir, nested), Name: "go",
		Args: []string{"mod", "download", "-json", module}, Env: b.environment(),
	})
	if err != nil {
		return "", fmt.Errorf("fetching module %s: %w", module, err)
	}
	var found struct{ Dir, Error string }
	if err := json.Unmarshal(out, &found); err != nil {
		return "", fmt.Errorf("fetching module %s: %w", module, err)
	}
	if found.Dir == "" {
		return "", fmt.Errorf("fetching module %s: no folder for it: %s", module, found.Error)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.folders[id] = found.Dir
	return found.Dir, nil
}

// forLinux is the Builder that images take their programs from.
func (b *Builder) forLinux() *Builder {
	if b.goos == "linux" {
		return b
	}
	return &Builder{
		CacheDir: b.CacheDir, ModulesDir: b.ModulesDir, Progress: b.Progress,
		goos: "linux", goarch: b.goarch, refresh: b.refresh, run: b.run, folders: map[string]string{},
	}
}

// debian are the settings under which Debian packages are taken.
func (b *Builder) debian() debian.Options {
	return debian.Options{
		CacheDir: filepath.Join(b.CacheDir, "debian"),
		Arch:     b.goarch,
		Refresh:  b.refresh,
		Progress: func(message string) { b.Progress("debian", message) },
	}
}
