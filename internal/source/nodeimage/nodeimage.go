// Package nodeimage builds the kind node image from Debian packages and Go programs, for places that cannot reach a
// container registry. The image has what kind's own has: systemd, containerd with runc and CNI plugins, kubelet,
// kubeadm and kubectl, kind's base files (taken from the kind module when building), and, inside containerd, the images
// that kubeadm starts and a default CNI.
//
// It has three layers, each cached under a key of everything in it: Debian, the node's programs and files, and
// containerd's store. So a changed program changes only the layers that it is in.
package nodeimage

import (
	"archive/tar"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ambientlab/internal/bundle"
	"ambientlab/internal/problem"
	"ambientlab/internal/source/layer"
	"ambientlab/internal/upstream/gomod"
)

// Ref is the node image's reference. Its tag is the version of Kubernetes inside.
const Ref = "kindest/node:v1.36.3"

// Substitute says what the node image is, since it is not what its reference says.
const Substitute = "kind node image built from source"

// Binaries builds programs from their pinned modules, static and stripped, and gives their paths.
type Binaries interface {
	Binary(ctx context.Context, name string) (string, error)
}

// Options are the inputs of Build.
type Options struct {
	// Binaries builds Kubernetes, etcd, CoreDNS, containerd, the CNI plugins, and the lab's own nodenet, pause and
	// criseed.
	Binaries Binaries
	// CacheDir keeps layers and the root file system between builds.
	CacheDir string
	// Progress, if set, gets a line for each thing that is done. It is called by one goroutine at a time.
	Progress func(component, message string)
}

// Image is a built node image with what is inside it, for the bill of materials.
type Image struct {
	// Image is a field and not embedded, because users of v1.Image hash it.
	Image v1.Image
	// Ref is the reference to give it.
	Ref string
	// Packages are the Debian packages inside.
	Packages []Package
	// Programs are the Go programs inside: paths on this machine by name. Each holds its own list of modules
	// (debug/buildinfo).
	Programs map[string]string
}

var (
	// Layers of the node image are gzip, because Docker engines older than 23 load no other compression.
	gzipFast = layer.Compression{MediaType: types.DockerLayer, Level: gzip.BestSpeed}
	// The layer of the images inside holds layers that are compressed already.
	gzipStore = layer.Compression{MediaType: types.DockerLayer, Level: gzip.NoCompression}
	// Layers of the images inside are unpacked on every node of every cluster, and zstd takes less time to unpack than
	// gzip.
	zstdDefault = layer.Compression{MediaType: types.OCILayerZStd, Level: int(zstd.SpeedDefault)}
)

type builder struct {
	opts   Options
	layers layer.Cache
}

// Build makes the node image, or the part of it that is not in the cache. It needs Linux and root, for debootstrap. The
// error is a problem that says why the image cannot be built. The image reads its layers from the cache when it is
// used.
func Build(ctx context.Context, opts Options) (Image, error) {
	if opts.Progress == nil {
		opts.Progress = func(string, string) {}
	}
	b := &builder{opts: opts, layers: layer.Cache{Dir: filepath.Join(opts.CacheDir, "layers")}}
	if err := checkHost(); err != nil {
		return Image{}, err
	}
	programs, err := b.programs(ctx)
	if err != nil {
		return Image{}, err
	}
	version, err := kubernetesVersion(ctx, programs["kubeadm"])
	if err != nil {
		return Image{}, err
	}
	refs, err := kubeadmRefs(ctx, programs["kubeadm"], version)
	if err != nil {
		return Image{}, err
	}
	root, err := rootfs(ctx, opts.CacheDir, func(message string) { opts.Progress("debian", message) })
	if err != nil {
		return Image{}, err
	}
	layers, err := b.nodeLayers(ctx, root, programs, refs, version)
	if err != nil {
		return Image{}, err
	}
	packages, err := installed(root)
	if err != nil {
		return Image{}, err
	}
	img, err := assemble(layers)
	if err != nil {
		return Image{}, fmt.Errorf("assembling the node image: %w", err)
	}
	delete(programs, "criseed") // it made the image and is not in it
	return Image{Image: img, Ref: Ref, Packages: packages, Programs: programs}, nil
}

// programs builds the programs that the image holds or is made with.
func (b *builder) programs(ctx context.Context) (map[string]string, error) {
	programs := map[string]string{}
	for _, name := range slices.Concat(sortedKeys(nodePrograms()), sortedKeys(insidePrograms()), []string{"criseed"}) {
		b.opts.Progress("programs", "building "+name)
		path, err := b.opts.Binaries.Binary(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("building %s for the node image: %w", name, err)
		}
		programs[name] = path
	}
	return programs, nil
}

// kubernetesVersion asks kubeadm for its version, which kind reads from the image and which must be the tag's.
func kubernetesVersion(ctx context.Context, kubeadm string) (string, error) {
	out, err := run(ctx, kubeadm, "version", "-o", "short")
	if err != nil {
		return "", problem.New(problem.BuildFailed, err, "asking kubeadm for its version")
	}
	version := strings.TrimSpace(string(out))
	if _, tag, _ := strings.Cut(Ref, ":"); tag != version {
		return "", problem.New(problem.BuildFailed, nil, "kubeadm is %s, and the node image is to be %s", version, Ref)
	}
	return version, nil
}

// nodeLayers makes the three layers, the lowest first.
func (b *builder) nodeLayers(
	ctx context.Context, root string, programs, refs map[string]string, version string,
) ([]v1.Layer, error) {
	b.opts.Progress("layers", "Debian")
	debian, err := b.layers.Layer("debian "+rootfsKey(), gzipFast, func(t *tar.Writer) error {
		return layer.WriteTree(t, root, "")
	})
	if err != nil {
		return nil, fmt.Errorf("making the Debian layer: %w", err)
	}
	b.opts.Progress("layers", "node")
	kindDir, err := gomod.New("").Dir(ctx, "sigs.k8s.io/kind")
	if err != nil {
		return nil, err
	}
	entries, err := nodeEntries(ctx, kindDir, programs, version, refs["pause"])
	if err != nil {
		return nil, err
	}
	node, err := b.layers.Files(gzipFast, entries)
	if err != nil {
		return nil, fmt.Errorf("making the node's layer: %w", err)
	}
	b.opts.Progress("layers", "images")
	images, err := b.insideImages(refs, programs, root)
	if err != nil {
		return nil, err
	}
	store, err := b.storeLayer(ctx, programs["criseed"], images)
	if err != nil {
		return nil, err
	}
	return []v1.Layer{debian, node, store}, nil
}

func assemble(layers []v1.Layer) (v1.Image, error) {
	img := v1.Image(empty.Image)
	for _, l := range layers {
		var err error
		if img, err = mutate.AppendLayers(img, l); err != nil {
			return nil, err
		}
	}
	return configured(img, v1.Config{
		Entrypoint: []string{"/usr/local/bin/entrypoint", "/sbin/init"},
		Env: []string{
			"container=docker", // tells systemd what it runs in
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		},
		StopSignal: "SIGRTMIN+3", // systemd's signal to halt; SIGTERM would make it start over
		Labels:     map[string]string{bundle.AnnotationSubstitute: Substitute},
	})
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// tempDir makes a folder in the cache, so that large things do not go through a small /tmp.
func (b *builder) tempDir(pattern string) (string, error) {
	if err := os.MkdirAll(b.opts.CacheDir, 0o755); err != nil {
		return "", fmt.Errorf("making the cache: %w", err)
	}
	dir, err := os.MkdirTemp(b.opts.CacheDir, pattern)
	if err != nil {
		return "", fmt.Errorf("making a temporary folder: %w", err)
	}
	return dir, nil
}
