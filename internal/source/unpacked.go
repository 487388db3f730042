package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Unpacked is what an image of [Builder.Refs] would hold, as files of this machine: for pods that run without a
// container runtime.
type Unpacked struct {
	Ref string
	// Files maps a path in the image to the file on this machine. Contents are files that are made, by their path.
	Files    map[string]string
	Contents map[string][]byte
	// Directories are empty folders of the image.
	Directories []string
	// Libraries says that the programs need a C library, which the image takes from Debian packages.
	Libraries bool
	Config    v1.Config
	// Substitute says what it is where it is not what Ref says.
	Substitute string
}

// ProgramsOf names the programs of an image, which Binary builds.
func (b *Builder) ProgramsOf(ref string) ([]string, error) {
	r, err := b.recipe(ref)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range r.programs {
		names = append(names, p.program)
	}
	return names, nil
}

// SubstituteOf says what the image of a reference is where it is not what the reference says; empty where it is.
func SubstituteOf(ref string) (string, error) {
	r, err := (&Builder{}).recipe(ref)
	return r.substitute, err
}

// Envoy gives the path of upstream Envoy, which is fetched once.
func (b *Builder) Envoy(ctx context.Context) (string, error) {
	path, _, err := b.envoyBinary(ctx)
	if err != nil {
		return "", fmt.Errorf("getting Envoy: %w", err)
	}
	return path, nil
}

// Unpack builds what an image would hold.
func (b *Builder) Unpack(ctx context.Context, ref string) (Unpacked, error) {
	r, err := b.recipe(ref)
	if err != nil {
		return Unpacked{}, err
	}
	out := Unpacked{
		Ref: r.ref, Files: map[string]string{}, Contents: map[string][]byte{},
		Libraries: slices.Contains(r.packages, "libc6"),
		Config:    r.config, Substitute: r.substitute,
	}
	for _, file := range r.extra {
		if file.Dir {
			out.Directories = append(out.Directories, file.Path)
		}
	}
	for _, p := range r.programs {
		if out.Files[p.path], err = b.Binary(ctx, p.program); err != nil {
			return Unpacked{}, err
		}
	}
	for _, c := range r.files {
		if out.Contents[c.to], err = b.copied(ctx, c); err != nil {
			return Unpacked{}, err
		}
	}
	if r.envoy {
		if out.Files[envoyPath], err = b.Envoy(ctx); err != nil {
			return Unpacked{}, err
		}
	}
	return out, nil
}

// copied reads a file of a module's folder, with its edits.
func (b *Builder) copied(ctx context.Context, c copied) ([]byte, error) {
	dir, err := b.ModuleDir(ctx, c.nested, c.module)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(c.from)))
	if err != nil {
		return nil, fmt.Errorf("reading %s of module %s: %w", c.from, c.module, err)
	}
	if c.edit == nil {
		return content, nil
	}
	if content, err = c.edit(content); err != nil {
		return nil, fmt.Errorf("%s of module %s: %w", c.from, c.module, err)
	}
	return content, nil
}

// PodImages lists the references of the images that can be run without a container runtime and a node: all but those
// that work on a node itself, or whose program a lab runs by other means.
func PodImages() []string {
	var refs []string
	for _, r := range recipes() {
		if !slices.ContainsFunc([]string{"/install-cni:", "/pilot:", "/metallb/"},
			func(part string) bool { return strings.Contains(r.ref, part) }) {
			refs = append(refs, r.ref)
		}
	}
	return refs
}
