package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"ambientlab/internal/command"
	"ambientlab/internal/source/debian"
	"ambientlab/internal/upstream/gomod"
)

// Options are a Builder's settings; the zero value is what a lab uses.
type Options struct {
	// CacheDir is where built programs and fetched files are kept. The default is ambientlab/source in the user's cache
	// folder.
	CacheDir string
	// ModulesDir is the folder of the nested modules. The default is internal/source/modules in the main module around
	// the working directory.
	ModulesDir string
	// GOOS and GOARCH are what Binary builds for. The default is this machine. Images are always for Linux.
	GOOS, GOARCH string
	// Refresh looks for newer Debian packages even if the cache holds some.
	Refresh bool
	// Progress gets one line for each thing that is done. It can be called from several goroutines.
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
	toolchain    string                    // the version and the settings of the Go toolchain, once they are known
	nested       map[string]*gomod.Modules // by the folder of the nested module
}

// New returns a Builder. It fails if there is no cache folder of the user, or no folder of nested modules.
func New(opts Options) (*Builder, error) {
	b := &Builder{
		CacheDir: opts.CacheDir, ModulesDir: opts.ModulesDir, Progress: opts.Progress,
		goos: opts.GOOS, goarch: opts.GOARCH, refresh: opts.Refresh,
		run: command.Run, nested: map[string]*gomod.Modules{},
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
		dir, err := gomod.New("").Root()
		if err != nil {
			return nil, fmt.Errorf("finding the modules to build from: %w", err)
		}
		b.ModulesDir = filepath.Join(dir, "internal", "source", "modules")
	}
	if _, err := os.Stat(b.ModulesDir); err != nil {
		return nil, fmt.Errorf("looking for the modules to build from: %w", err)
	}
	return b, nil
}

// ModuleDir is the folder, read-only in Go's module cache, of a module that the nested module pins. It holds the files
// of an upstream project that are not Go code, such as the template of Envoy's bootstrap configuration.
func (b *Builder) ModuleDir(ctx context.Context, nested, module string) (string, error) {
	b.mu.Lock()
	modules, ok := b.nested[nested]
	if !ok {
		modules = gomod.New(filepath.Join(b.ModulesDir, nested))
		b.nested[nested] = modules
	}
	b.mu.Unlock()
	return modules.Dir(ctx, module)
}

// forLinux is the Builder that images take their programs from.
func (b *Builder) forLinux() *Builder {
	if b.goos == "linux" {
		return b
	}
	return &Builder{
		CacheDir: b.CacheDir, ModulesDir: b.ModulesDir, Progress: b.Progress,
		goos: "linux", goarch: b.goarch, refresh: b.refresh, run: b.run, nested: map[string]*gomod.Modules{},
	}
}

// debian are the options for Debian packages.
func (b *Builder) debian() debian.Options {
	return debian.Options{
		CacheDir: filepath.Join(b.CacheDir, "debian"),
		Arch:     b.goarch,
		Refresh:  b.refresh,
		Progress: func(message string) { b.Progress("debian", message) },
	}
}
