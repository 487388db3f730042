package source

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"ambientlab/internal/bundle"
	"ambientlab/internal/source/debian"
	"ambientlab/internal/source/layer"
)

// LabelModules is the label of an image built here that names the modules, with versions, of its programs.
const LabelModules = "lab.modules"

// ErrUnknownImage is wrapped by Image's error if there is no recipe for the reference.
var ErrUnknownImage = errors.New("this image cannot be built from source")

// Image is an image built from source.
type Image struct {
	// Ref is its reference.
	Ref string
	// Image is its content, which is read from the cache.
	Image v1.Image
	// Substitute says what the image is if it is not what Ref says.
	Substitute string
	// Modules lists what is inside: Go modules, Debian packages, and Envoy.
	Modules []Component
}

// Refs lists the references that Image can build.
func (b *Builder) Refs() []string {
	var refs []string
	for _, r := range recipes() {
		refs = append(refs, r.ref)
	}
	return refs
}

// Image builds the image of a reference, in any of its forms. It ignores a digest in the reference, because a built
// image never has the digest of the registry's. If the reference is none of [Builder.Refs], the error wraps
// ErrUnknownImage and lists them.
func (b *Builder) Image(ctx context.Context, ref string) (Image, error) {
	r, err := b.recipe(ref)
	if err != nil {
		return Image{}, err
	}
	image, err := b.forLinux().assemble(ctx, r)
	if err != nil {
		return Image{}, fmt.Errorf("building image %s: %w", r.ref, err)
	}
	return image, nil
}

func (b *Builder) recipe(ref string) (recipe, error) {
	all := recipes()
	want, err := familiar(ref)
	if err != nil {
		return recipe{}, fmt.Errorf("image reference %q: %w", ref, err)
	}
	i := slices.IndexFunc(all, func(r recipe) bool {
		have, err := familiar(r.ref)
		return err == nil && have == want
	})
	if i < 0 {
		return recipe{}, fmt.Errorf("%w: %s; there are %s", ErrUnknownImage, ref, strings.Join(b.Refs(), ", "))
	}
	return all[i], nil
}

// familiar returns the full form of a reference, without a digest.
func familiar(ref string) (string, error) {
	ref, _, _ = strings.Cut(ref, "@")
	tag, err := name.NewTag(ref, name.WeakValidation)
	if err != nil {
		return "", err
	}
	return tag.Name(), nil
}

// assemble builds an image. The layers that change least come first, and each program has a layer of its own.
func (b *Builder) assemble(ctx context.Context, r recipe) (Image, error) {
	out := Image{Ref: r.ref, Substitute: r.substitute}
	base, err := b.layer(baseFiles())
	if err != nil {
		return Image{}, err
	}
	var layers []mutate.Addendum
	add := func(l v1.Layer, what string) {
		layers = append(layers, mutate.Addendum{
			Layer: l, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: layer.Epoch}, CreatedBy: "ambientlab: " + what},
		})
	}
	if len(r.packages) > 0 {
		l, installed, err := debian.Extract(ctx, r.packages, b.debian())
		if err != nil {
			return Image{}, err
		}
		add(l, "Debian packages "+strings.Join(r.packages, " "))
		out.Modules = append(out.Modules, debianComponents(installed)...)
	}
	add(base, "users and folders")
	if len(r.extra)+len(r.files) > 0 {
		l, err := b.files(ctx, r)
		if err != nil {
			return Image{}, err
		}
		add(l, "files")
	}
	if r.envoy {
		l, component, err := b.envoy(ctx)
		if err != nil {
			return Image{}, err
		}
		add(l, "Envoy "+envoyVersion)
		out.Modules = append(out.Modules, component)
	}
	var mains []string
	for _, p := range r.programs {
		binary, err := b.Binary(ctx, p.program)
		if err != nil {
			return Image{}, err
		}
		l, err := b.layer([]layer.File{{Path: p.path, Mode: 0o755, Source: binary}})
		if err != nil {
			return Image{}, err
		}
		add(l, path.Base(p.path))
		components, main, err := goComponents(p.path, binary)
		if err != nil {
			return Image{}, err
		}
		out.Modules = append(out.Modules, components...)
		if main != "" && !slices.Contains(mains, main) {
			mains = append(mains, main)
		}
	}
	out.Image, err = b.finish(r, layers, mains)
	return out, err
}

// layer is a layer of an image. Its size matters, because containerd flushes each blob to disk; zstd would make it
// smaller, but Docker engines before 23 cannot load it.
func (b *Builder) layer(files []layer.File) (v1.Layer, error) {
	cache := layer.Cache{Dir: filepath.Join(b.CacheDir, "layers")}
	return cache.Files(layer.Compression{MediaType: types.OCILayer, Level: gzip.BestSpeed}, files)
}

// files is the layer of the files that are copied from modules and of those that the recipe holds.
func (b *Builder) files(ctx context.Context, r recipe) (v1.Layer, error) {
	files := slices.Clone(r.extra)
	for _, c := range r.files {
		content, err := b.copied(ctx, c)
		if err != nil {
			return nil, err
		}
		files = append(files, layer.File{Path: c.to, Data: content})
	}
	return b.layer(files)
}

// finish adds the layers to an empty image and sets its configuration.
func (b *Builder) finish(r recipe, layers []mutate.Addendum, mains []string) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(image, layers...)
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", b.goarch
	file.Created = v1.Time{Time: layer.Epoch}
	file.Config = r.config
	file.Config.Labels = map[string]string{LabelModules: strings.Join(mains, " ")}
	if r.substitute != "" {
		file.Config.Labels[bundle.AnnotationSubstitute] = r.substitute
	}
	return mutate.ConfigFile(image, file)
}
