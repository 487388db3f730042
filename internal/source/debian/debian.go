// Package debian turns Debian packages into image layers.
//
// apt resolves the dependencies and checks Debian's signatures. It has folders of its own, so that the host's sources
// and installed packages make no difference. The scripts of packages are not run, so root is not needed. A layer holds
// the files of its packages without their times and documentation, so the same packages give the same digest.
package debian

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

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

// Options are where packages come from and where they are kept.
type Options struct {
	// CacheDir holds lists, packages and layers. It is required.
	CacheDir string
	// Suite is a Debian release, Mirror where it comes from. The defaults are bookworm and deb.debian.org.
	Suite, Mirror string
	// Arch is the architecture in Go's terms. The default is this machine's.
	Arch string
	// Refresh looks for newer versions even if there is a layer of these packages.
	Refresh bool
	// Progress gets a line for each thing that is done.
	Progress func(message string)
}

// Package is a package that is in a layer.
type Package struct {
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	// File is the path of the package's file in the cache.
	File string `json:"file"`
	// SHA256 is the checksum of the file in Debian's signed lists.
	SHA256 string `json:"sha256"`
}

// Extract returns a layer with the given packages and everything that they depend on, and the list of the packages in
// it. The versions stay the same until Refresh: without it, no mirror is asked while the cache has the layer.
func Extract(ctx context.Context, packages []string, opts Options) (v1.Layer, []Package, error) {
	opts = opts.withDefaults()
	names := slices.Clone(packages)
	slices.Sort(names)
	names = slices.Compact(names)
	list := filepath.Join(opts.CacheDir, "lists", opts.key(names)+".json")
	if !opts.Refresh {
		if installed, err := readList(list); err == nil {
			l, err := opts.layer(ctx, names, installed)
			if !errors.Is(err, fs.ErrNotExist) { // the cache has neither the layer nor the files of the packages
				return l, installed, err
			}
		}
	}
	installed, err := Download(ctx, names, opts)
	if err != nil {
		return nil, nil, err
	}
	raw, err := json.Marshal(installed)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(filepath.Dir(list), 0o755); err != nil {
		return nil, nil, err
	}
	if err := atomicfile.Write(list, raw, 0o644); err != nil {
		return nil, nil, err
	}
	l, err := opts.layer(ctx, names, installed)
	return l, installed, err
}

// layer makes the layer of packages whose files are on disk, or finds it in the cache.
func (o Options) layer(ctx context.Context, names []string, installed []Package) (v1.Layer, error) {
	key := fmt.Sprint("debian ", layout, o.Arch)
	for _, p := range installed {
		key += " " + p.SHA256
	}
	cache := layer.Cache{Dir: filepath.Join(o.CacheDir, "layers")}
	l, err := cache.Layer(key, layer.Compression{MediaType: types.OCILayer, Level: gzip.BestSpeed},
		func(t *tar.Writer) error {
			o.Progress(fmt.Sprintf("unpacking %d packages for %s", len(installed), strings.Join(names, ", ")))
			return write(ctx, t, installed, o.Arch)
		})
	if err != nil { // not l: a nil *layer.Layer in the interface would not be nil
		return nil, fmt.Errorf("unpacking Debian packages: %w", err)
	}
	return l, nil
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

// layout is raised when Extract lays files out differently, so that it does not find layers of before.
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
