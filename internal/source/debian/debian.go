// Package debian turns Debian packages into image layers.
//
// apt resolves the dependencies and checks Debian's signatures, in folders of its own so that neither the
// host's sources nor what is installed there has a say. No package's scripts are run: what lies in the layer is
// what lies in the packages, with the time and the documentation taken out, so that the same packages give the
// same digest, and no root is needed.
package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/source/layer"
)

// Defaults of Options.
const (
	Suite  = "bookworm"
	Mirror = "http://deb.debian.org/debian"
	// securityMirror is where fixes between point releases are.
	securityMirror = "http://deb.debian.org/debian-security"
)

// Options say which packages are meant and where they are kept.
type Options struct {
	// CacheDir keeps lists, packages and layers; it must be given.
	CacheDir string
	// Suite is Debian's release, Mirror where it comes from; bookworm and deb.debian.org unless given.
	Suite, Mirror string
	// Arch is the architecture by Go's name, the machine's unless given.
	Arch string
	// Refresh asks for newer versions although a layer of these packages is there.
	Refresh bool
	// Progress hears what is being done.
	Progress func(message string)
}

// Package is a package that is in a layer.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	// File is the package's own file in the cache.
	File string `json:"file"`
	// SHA256 is that file's checksum, as Debian's signed lists give it.
	SHA256 string `json:"sha256"`
}

// Extract returns a layer with the given packages and everything that they depend on, and the list of what is
// in it. A layer that was made once is found again, and stays the same until Refresh; without it nothing is
// asked of any mirror.
func Extract(ctx context.Context, packages []string, opts Options) (v1.Layer, []Package, error) {
	opts = opts.withDefaults()
	names := slices.Clone(packages)
	slices.Sort(names)
	names = slices.Compact(names)
	dir := filepath.Join(opts.CacheDir, "layers", opts.key(names))
	tarball, list := filepath.Join(dir, "layer.tar"), filepath.Join(dir, "packages.json")
	if !opts.Refresh {
		if installed, err := readList(list); err == nil {
			l, err := layer.FromTar(tarball)
			return l, installed, err
		}
	}
	installed, err := Download(ctx, names, opts)
	if err != nil {
		return nil, nil, err
	}
	opts.Progress(fmt.Sprintf("unpacking %d packages for %s", len(installed), strings.Join(names, ", ")))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	if err := atomicfile.WriteFunc(tarball, 0o644, func(f *os.File) error { return write(ctx, f, installed, opts.Arch) }); err != nil {
		return nil, nil, fmt.Errorf("unpacking Debian packages: %w", err)
	}
	// The list comes last: it is what says that the layer is whole.
	if err := atomicfile.WriteFunc(list, 0o644, func(f *os.File) error { return json.NewEncoder(f).Encode(installed) }); err != nil {
		return nil, nil, fmt.Errorf("unpacking Debian packages: %w", err)
	}
	l, err := layer.FromTar(tarball)
	return l, installed, err
}

func (o Options) withDefaults() Options {
	if o.Suite == "" {
		o.Suite = Suite
	}
	if o.Mirror == "" {
		o.Mirror = Mirror
	}
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// layout is counted up when Extract lays files out differently, so that layers of before are not found.
const layout = 1

func (o Options) key(names []string) string {
	sum := sha256.New()
	fmt.Fprintln(sum, layout, o.Suite, o.Arch, names)
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

func readList(path string) ([]Package, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []Package
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return list, nil
}
