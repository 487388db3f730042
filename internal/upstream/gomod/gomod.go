// Package gomod finds the folders of the Go modules that a go.mod pins. What is read from them (manifests, templates,
// source code) has the contents that go.sum lists.
package gomod

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"ambientlab/internal/command"
	"ambientlab/internal/problem"
)

// mainModule is the path of this repository's module.
const mainModule = "ambientlab"

// Modules finds the folders of modules. It is safe for concurrent use.
type Modules struct {
	command goCommand
	getwd   func() (string, error)

	mu   sync.Mutex
	root string
	dirs map[string]string // the folders that were found, by module
}

// New returns the Modules that the go.mod in the folder root pins. With root "" that is this repository's go.mod, which
// is looked for in the working directory and the folders above it when it is first needed.
func New(root string) *Modules {
	return &Modules{command: runGo, getwd: os.Getwd, root: root, dirs: map[string]string{}}
}

// download is what `go mod download -json` prints for one module.
type download struct {
	Path, Version, Dir, Sum, Error string
}

// goCommand runs the go command in dir and returns its standard output. Tests replace it.
type goCommand func(ctx context.Context, dir string, args ...string) ([]byte, error)

// runGo runs the go command with the environment's module settings (GOPROXY, GOFLAGS, GOSUMDB). Workspaces are off: a
// go.work file could replace the pinned versions.
func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	// With -json a failed download exits with 1 and is described on standard output, which the caller reads first.
	return command.Run(ctx, command.Command{
		Dir: dir, Env: []string{"GOWORK=off", "GO111MODULE=on"}, Name: "go", Args: args,
	})
}

// Dir returns the folder, read-only, of a module at the version that go.mod pins. The module is downloaded where the
// module cache lacks it. The go command checks what it downloads against go.sum; the sum it reports is compared again,
// so that a module that go.sum does not list is refused too. Every error is the problem ManifestUnavailable, unless ctx
// has ended.
func (m *Modules) Dir(ctx context.Context, module string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if dir, ok := m.dirs[module]; ok {
		return dir, nil
	}
	root, err := m.findRoot()
	if err != nil {
		return "", err
	}
	out, runErr := m.command(ctx, root, "mod", "download", "-json", module)
	if errors.Is(runErr, exec.ErrNotFound) {
		return "", problem.New(problem.ManifestUnavailable, runErr,
			"module %s cannot be fetched: there is no go command on this host", module).
			With("Install Go " + goVersion + " or later (https://go.dev/dl), and check it with `go version`.")
	}
	got, err := parseDownload(out, module)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("downloading module %s: %w", module, context.Cause(ctx))
	case err != nil && runErr != nil:
		return "", problem.New(problem.ManifestUnavailable, runErr, "module %s cannot be fetched", module)
	case err != nil:
		return "", problem.New(problem.ManifestUnavailable, err, "the go command's answer about module %s", module)
	case got.Error != "":
		err := errors.New(got.Error)
		return "", problem.New(problem.ManifestUnavailable, err, "module %s cannot be downloaded", module)
	case runErr != nil:
		return "", problem.New(problem.ManifestUnavailable, runErr, "module %s cannot be fetched", module)
	}
	if err := checkSum(root, got); err != nil {
		return "", err
	}
	m.dirs[module] = got.Dir
	return got.Dir, nil
}

// goVersion is the lowest version of Go that go.mod accepts.
const goVersion = "1.26"

func parseDownload(out []byte, module string) (download, error) {
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var d download
		if err := dec.Decode(&d); errors.Is(err, io.EOF) {
			return download{}, fmt.Errorf("it does not mention %s", module)
		} else if err != nil {
			return download{}, err
		}
		if d.Path == module {
			return d, nil
		}
	}
}

// checkSum refuses a module whose checksum is not the one in go.sum.
func checkSum(root string, d download) error {
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return problem.New(problem.ManifestUnavailable, err, "checking module %s", d.Path)
	}
	key := d.Path + " " + d.Version + " "
	for line := range strings.Lines(string(sums)) {
		want, ok := strings.CutPrefix(strings.TrimSpace(line), key)
		if !ok {
			continue
		}
		if want == d.Sum {
			return nil
		}
		return problem.New(problem.ManifestUnavailable, nil,
			"module %s %s has the checksum %s, and go.sum says %s", d.Path, d.Version, d.Sum, want).
			With("Do not continue: the module was changed after it was pinned.",
				"Run `go clean -modcache`, then `go mod verify`.")
	}
	return problem.New(problem.ManifestUnavailable, nil, "go.sum does not list module %s %s", d.Path, d.Version).
		With("Restore go.mod and go.sum from the repository.")
}

// Root returns the folder of the go.mod that pins the modules.
func (m *Modules) Root() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.findRoot()
}

func (m *Modules) findRoot() (string, error) {
	if m.root != "" {
		return m.root, nil
	}
	start, err := m.getwd()
	if err != nil {
		return "", problem.New(problem.ManifestUnavailable, err, "looking for this module's go.mod")
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if isMainModule(filepath.Join(dir, "go.mod")) {
			m.root = dir
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", problem.New(problem.ManifestUnavailable, nil,
				"neither %s nor a folder above it has the go.mod of module %s, which pins the modules",
				start, mainModule).
				With("Run the target in a checkout of this repository.")
		}
	}
}

func isMainModule(goMod string) bool {
	data, err := os.ReadFile(goMod)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "module "); ok {
			return strings.Trim(strings.TrimSpace(name), `"`) == mainModule
		}
	}
	return false
}
