package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"ambientlab/internal/problem"
)

// fakeDocker is a Docker API with one image in it.
type fakeDocker struct {
	images map[string]v1.Image
	loads  int
	// answer, if not empty, is what a load is answered with in place of taking the image.
	answer string
	// unreachable makes a load fail before it reads anything.
	unreachable bool
	// foreign gives every image an ID of its own, as containerd's image store does.
	foreign bool
}

func (f *fakeDocker) ImageInspect(
	_ context.Context, ref string, _ ...client.ImageInspectOption,
) (client.ImageInspectResult, error) {
	var out client.ImageInspectResult
	img, ok := f.images[ref]
	if !ok {
		return out, fmt.Errorf("no such image: %s: %w", ref, errdefs.ErrNotFound)
	}
	id, err := img.ConfigName()
	if err != nil {
		return out, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return out, err
	}
	out.ID = id.String()
	if f.foreign {
		out.ID = "sha256:" + strings.Repeat("f", 64)
	}
	for _, diff := range config.RootFS.DiffIDs {
		out.RootFS.Layers = append(out.RootFS.Layers, diff.String())
	}
	out.Config = &dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{Labels: config.Config.Labels}}
	return out, nil
}

func (f *fakeDocker) ImageLoad(
	_ context.Context, archive io.Reader, _ ...client.ImageLoadOption,
) (client.ImageLoadResult, error) {
	f.loads++
	if f.unreachable {
		return nil, errors.New("Cannot connect to the Docker daemon")
	}
	raw, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	if f.answer != "" {
		return io.NopCloser(strings.NewReader(f.answer)), nil
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, err
	}
	for _, text := range manifest[0].RepoTags {
		tag, err := name.NewTag(text)
		if err != nil {
			return nil, err
		}
		img, err := tarball.Image(open, &tag)
		if err != nil {
			return nil, err
		}
		parsed, err := ParseReference(text)
		if err != nil {
			return nil, err
		}
		f.images[parsed.Familiar()] = img
	}
	return io.NopCloser(strings.NewReader(`{"stream":"Loaded image"}`)), nil
}

func TestLoadNodeImage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 2, "built from source")
	writeBundle(t, dir, map[string]v1.Image{"kindest/node:v1.36.4": img})
	b := openBundle(t, dir)
	for _, foreign := range []bool{false, true} {
		docker := &fakeDocker{
			images:  map[string]v1.Image{"kindest/node:v1.36.4": makeImage(t, 1, "")},
			foreign: foreign,
		}
		for i, held := range []bool{false, true} {
			got, err := LoadNodeImage(t.Context(), docker, b,
				"docker.io/kindest/node:v1.36.4@"+digestOf(t, img).String())
			if err != nil {
				t.Fatal(err)
			}
			if got.Ref != "kindest/node:v1.36.4" || got.Held != held || got.ID == "" || docker.loads != 1 {
				t.Errorf("time %d: %+v after %d loads", i, got, docker.loads)
			}
		}
	}
}

func TestLoadNodeImageFails(t *testing.T) {
	const ref = "kindest/node:v1.36.4"
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 2, "")
	writeBundle(t, dir, map[string]v1.Image{ref: img})
	other := map[string]v1.Image{ref: makeImage(t, 1, "")}
	tests := map[string]struct {
		docker *fakeDocker
		says   string
	}{
		"unreachable": {&fakeDocker{unreachable: true}, "Cannot connect to the Docker daemon"},
		"full": {
			&fakeDocker{answer: `{"stream":"..."}{"error":"no space left on device"}`},
			"no space left on device",
		},
		"another image": {&fakeDocker{images: other, answer: `{"stream":"Loaded"}`}, "but has a different image"},
	}
	for name, test := range tests {
		_, err := LoadNodeImage(t.Context(), test.docker, openBundle(t, dir), ref)
		if !problem.Is(err, problem.ImageLoadFailed) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want it to say %q", name, err, test.says)
		}
	}
	layer := layersOf(t, img)[1]
	flip(t, blobPath(dir, layer))
	docker := &fakeDocker{images: map[string]v1.Image{}}
	_, err := LoadNodeImage(t.Context(), docker, openBundle(t, dir), ref)
	if !problem.Is(err, problem.BundleCorrupt) || !strings.Contains(err.Error(), layer.String()) ||
		len(docker.images) > 0 {
		t.Errorf("an altered layer: %v; Docker has %v", err, docker.images)
	}
}

func TestPlatform(t *testing.T) {
	for in, want := range map[string]string{"x86_64": "linux/amd64", "aarch64": "linux/arm64", "amd64": "linux/amd64"} {
		if got := Platform("linux", in).String(); got != want {
			t.Errorf("%s gives %s, want %s", in, got, want)
		}
	}
}
