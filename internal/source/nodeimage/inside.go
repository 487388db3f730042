package nodeimage

import (
	"archive/tar"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"ambientlab/internal/problem"
	"ambientlab/internal/source/layer"
)

// nodenetRef is the reference of the default CNI's image in files/default-cni.yaml. It is never pulled.
const nodenetRef = "localhost/ambientlab/nodenet:built"

// containerdImageName is the annotation from which containerd and criseed take the name of an image in an OCI layout.
const containerdImageName = "io.containerd.image.name"

// inside is an image in the containerd of the node image.
type inside struct {
	ref    string
	layers []v1.Layer
	entry  string // the program
}

// insidePrograms are the programs that become images, each with its path in its image. kubeadm's manifests name most of
// them without a path, but kube-proxy and CoreDNS with their paths in the real images.
func insidePrograms() map[string]string {
	return map[string]string{
		"etcd":                    "usr/local/bin/etcd",
		"kube-apiserver":          "usr/local/bin/kube-apiserver",
		"kube-controller-manager": "usr/local/bin/kube-controller-manager",
		"kube-scheduler":          "usr/local/bin/kube-scheduler",
		"kube-proxy":              "usr/local/bin/kube-proxy",
		"coredns":                 "coredns",
		"pause":                   "pause",
		"nodenet":                 "nodenet",
	}
}

// kubeadmRefs asks kubeadm for the images of its cluster, and returns them by the name of their program.
func kubeadmRefs(ctx context.Context, kubeadm, version string) (map[string]string, error) {
	out, err := run(ctx, kubeadm, "config", "images", "list", "--kubernetes-version", version)
	if err != nil {
		return nil, problem.New(problem.BuildFailed, err, "asking kubeadm for its images")
	}
	refs := map[string]string{"nodenet": nodenetRef}
	for _, line := range strings.Fields(string(out)) {
		name, _, ok := strings.Cut(path.Base(line), ":")
		if !ok || insidePrograms()[name] == "" {
			return nil, problem.New(problem.BuildFailed, nil, "kubeadm needs the image %q, which the lab cannot build",
				line)
		}
		refs[name] = line
	}
	for name := range insidePrograms() {
		if refs[name] == "" {
			return nil, problem.New(problem.BuildFailed, nil, "kubeadm names no image of %s", name)
		}
	}
	return refs, nil
}

// insideImages makes the images, each of one static program. kube-proxy's also has Debian's network tools.
func (b *builder) insideImages(refs, programs map[string]string, rootfs string) ([]inside, error) {
	tools, err := netTools(rootfs)
	if err != nil {
		return nil, fmt.Errorf("collecting iptables for kube-proxy: %w", err)
	}
	toolsLayer, err := b.layers.Files(zstdDefault, tools)
	if err != nil {
		return nil, err
	}
	var out []inside
	for _, name := range sortedKeys(insidePrograms()) {
		if err := mustBeStatic(programs[name]); err != nil {
			return nil, fmt.Errorf("making the image %s: %w", refs[name], err)
		}
		at := insidePrograms()[name]
		own, err := b.layers.Files(zstdDefault, []layer.File{{Path: at, Mode: 0o755, Source: programs[name]}})
		if err != nil {
			return nil, fmt.Errorf("making the image %s: %w", refs[name], err)
		}
		i := inside{ref: refs[name], layers: []v1.Layer{own}, entry: "/" + at}
		if name == "kube-proxy" {
			i.layers = []v1.Layer{toolsLayer, own}
		}
		out = append(out, i)
	}
	return out, nil
}

// mustBeStatic refuses a program that needs a dynamic loader. Its image has none, and the pod would fail with "no such
// file or directory".
func mustBeStatic(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("reading %s: %w", program, err)
	}
	defer f.Close()
	if f.Section(".interp") != nil {
		return problem.New(problem.BuildFailed, nil, "%s is dynamically linked, and has to be static", program).
			With("Build it with CGO_ENABLED=0.")
	}
	return nil
}

func (i inside) image() (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range i.layers {
		var err error
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, MediaType: zstdDefault.MediaType}); err != nil {
			return nil, err
		}
	}
	return configured(img, v1.Config{
		Entrypoint: []string{i.entry},
		Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		WorkingDir: "/",
	})
}

// configured sets the configuration, the platform and a constant time of creation of an image.
func configured(img v1.Image, config v1.Config) (v1.Image, error) {
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", runtime.GOARCH, config
	file.Created = v1.Time{Time: layer.Epoch}
	return mutate.ConfigFile(img, file)
}

// storeLayer is the layer with /var/lib/containerd, which holds the images as if containerd had pulled them.
func (b *builder) storeLayer(ctx context.Context, criseed string, images []inside) (v1.Layer, error) {
	seedPrint, err := layer.Fingerprint([]layer.File{{Source: criseed}})
	if err != nil {
		return nil, err
	}
	parts := []string{"store", seedPrint}
	index := v1.ImageIndex(empty.Index)
	for _, i := range images {
		img, err := i.image()
		if err != nil {
			return nil, fmt.Errorf("making the image %s: %w", i.ref, err)
		}
		digest, err := img.Digest()
		if err != nil {
			return nil, fmt.Errorf("making the image %s: %w", i.ref, err)
		}
		parts = append(parts, i.ref, digest.String())
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Annotations: map[string]string{containerdImageName: i.ref}},
		})
	}
	return b.layers.Layer(strings.Join(parts, " "), gzipStore, func(t *tar.Writer) error {
		tmp, err := b.tempDir("store-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		from, root := filepath.Join(tmp, "layout"), filepath.Join(tmp, "root")
		if _, err := layout.Write(from, index); err != nil {
			return fmt.Errorf("laying out the images: %w", err)
		}
		if _, err := run(ctx, criseed, "-layout", from, "-root", root); err != nil {
			return problem.New(problem.BuildFailed, err, "the images could not be put into the node image")
		}
		return layer.WriteTree(t, root, "var/lib/containerd")
	})
}
