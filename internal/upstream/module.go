package upstream

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

	"ambientlab/internal/problem"
)

// mainModule is the module whose go.mod and go.sum pin everything that is read here.
const mainModule = "ambientlab"

// The modules that are read from their folder. Istio's charts are not among what is
// read that way: they are compiled in (see charts).
const (
	istioModule      = "istio.io/istio"
	gatewayAPIModule = "sigs.k8s.io/gateway-api"
	metalLBModule    = "go.universe.tf/metallb"
)

// download is what `go mod download -json` says of one module.
type download struct {
	Path, Version, Dir, Sum, Error string
}

// goCommand runs the go command in dir and returns its standard output. It is a seam:
// tests answer in its place.
type goCommand func(ctx context.Context, dir string, args ...string) ([]byte, error)

// runGo runs the real go command. The environment's own module settings (GOPROXY,
// GOFLAGS, a mirror, a private checksum database) hold, but a go.work of some other
// tree must not exchange the pinned versions.
func runGo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	path, err := exec.LookPath("go")
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GO111MODULE=on")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		// With -json a failed download is described on standard output, and the
		// exit code is 1 all the same; the caller reads the former first.
		return stdout.Bytes(), fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// moduleDir gives the folder of a module at the version that go.mod pins, downloading
// it first where the module cache does not hold it. The go command checks what it
// downloads against go.sum; the sum it reports is compared once more, so that a
// module that go.sum does not list at all is refused too.
func (u *Upstream) moduleDir(ctx context.Context, module string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if dir, ok := u.dirs[module]; ok {
		return dir, nil
	}
	root, err := u.findRoot()
	if err != nil {
		return "", err
	}
	out, runErr := u.command(ctx, root, "mod", "download", "-json", module)
	if errors.Is(runErr, exec.ErrNotFound) {
		return "", problem.New(problem.ManifestUnavailable, runErr,
			"the manifests of %s lie in its Go module, and there is no go command on this host", module).
			With("Install Go " + goVersion + " or later (https://go.dev/dl) and see that `go version` answers in this shell.")
	}
	got, err := parseDownload(out, module)
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("downloading module %s: %w", module, context.Cause(ctx))
	case err != nil && runErr != nil:
		return "", problem.New(problem.ManifestUnavailable, runErr, "module %s cannot be had", module)
	case err != nil:
		return "", problem.New(problem.ManifestUnavailable, err, "the go command's answer about module %s", module)
	case got.Error != "":
		return "", problem.New(problem.ManifestUnavailable, errors.New(got.Error), "module %s cannot be downloaded", module)
	case runErr != nil:
		return "", problem.New(problem.ManifestUnavailable, runErr, "module %s cannot be had", module)
	}
	if err := checkSum(root, got); err != nil {
		return "", err
	}
	u.dirs[module] = got.Dir
	return got.Dir, nil
}

// goVersion is the least version of Go that go.mod asks for.
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

// checkSum refuses a module whose contents go.sum does not vouch for.
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
			With("Do not go on: the module was changed after it was pinned. Run `go clean -modcache`, then `go mod verify`.")
	}
	return problem.New(problem.ManifestUnavailable, nil, "go.sum does not list module %s %s", d.Path, d.Version).
		With("Restore go.mod and go.sum from the repository.")
}

// findRoot gives the main module's folder: the one that was named, or the first
// above the working directory whose go.mod is this module's.
func (u *Upstream) findRoot() (string, error) {
	if u.root != "" {
		return u.root, nil
	}
	start, err := u.getwd()
	if err != nil {
		return "", problem.New(problem.ManifestUnavailable, err, "looking for this module's go.mod")
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if isMainModule(filepath.Join(dir, "go.mod")) {
			u.root = dir
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", problem.New(problem.ManifestUnavailable, nil,
				"neither %s nor a folder above it holds the go.mod of module %s, which pins the manifests", start, mainModule).
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
