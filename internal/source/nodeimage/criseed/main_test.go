package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// TestSeed seeds a root folder with two images that share a layer, and reads it as containerd would.
func TestSeed(t *testing.T) {
	layout, root := t.TempDir(), filepath.Join(t.TempDir(), "containerd")
	layer := blob(t, layout, ocispec.MediaTypeImageLayer, []byte("a layer"))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	want := map[string]digest.Digest{}
	for _, name := range []string{"registry.k8s.io/pause:1", "registry.k8s.io/etcd:2"} {
		config := blob(t, layout, ocispec.MediaTypeImageConfig, []byte(`{"author":"`+name+`"}`))
		manifest, err := json.Marshal(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
			Config: config, Layers: []ocispec.Descriptor{layer},
		})
		check(t, err)
		desc := blob(t, layout, ocispec.MediaTypeImageManifest, manifest)
		desc.Annotations = map[string]string{images.AnnotationImageName: name}
		index.Manifests = append(index.Manifests, desc)
		want[name] = desc.Digest
	}
	raw, err := json.Marshal(index)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(layout, ocispec.ImageIndexFile), raw, 0o600))

	check(t, seed(t.Context(), layout, root))

	blobs, err := local.NewStore(filepath.Join(root, contentDir))
	check(t, err)
	bdb, err := bolt.Open(filepath.Join(root, metadataDir, "meta.db"), 0o600, nil)
	check(t, err)
	db := metadata.NewDB(bdb, blobs, nil)
	t.Cleanup(func() { check(t, db.Close()) })
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	// Nothing may look like garbage: containerd collects it when it starts.
	_, err = db.GarbageCollect(ctx)
	check(t, err)
	list, err := metadata.NewImageStore(db).List(ctx)
	check(t, err)
	if len(list) != len(want) {
		t.Errorf("there are %d images, want %d", len(list), len(want))
	}
	for _, image := range list {
		if image.Target.Digest != want[image.Name] || image.Labels["io.cri-containerd.pinned"] != "pinned" {
			t.Errorf("image %+v, want digest %s, pinned", image, want[image.Name])
		}
		manifest, err := images.Manifest(ctx, db.ContentStore(), image.Target, nil)
		check(t, err)
		got, err := content.ReadBlob(ctx, db.ContentStore(), manifest.Layers[0])
		check(t, err)
		if string(got) != "a layer" {
			t.Errorf("the layer of %s is %q", image.Name, got)
		}
	}
}

func TestSeedRefusesANamelessImage(t *testing.T) {
	layout := t.TempDir()
	raw, err := json.Marshal(ocispec.Index{Manifests: []ocispec.Descriptor{{Digest: digest.FromString("x")}}})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(layout, ocispec.ImageIndexFile), raw, 0o600))
	if err := seed(t.Context(), layout, t.TempDir()); err == nil {
		t.Error("an image without a name was taken")
	}
}

// blob writes a blob into an OCI layout.
func blob(t *testing.T, layout, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	store, err := local.NewStore(layout)
	check(t, err)
	check(t, content.WriteBlob(t.Context(), store, desc.Digest.String(), bytes.NewReader(data), desc))
	return desc
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
