// Command criseed writes the images of an OCI layout into a containerd root folder, as `ctr -n k8s.io images import
// --no-unpack` would. It uses containerd's content store and metadata database. containerd does not have to run, so
// putting images into a node image needs no root, no mount and no container.
//
//	criseed -layout DIR -root DIR
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// The folders in containerd's root are named after the URIs of its plugins.
const (
	contentDir  = "io.containerd.content.v1.content"
	metadataDir = "io.containerd.metadata.v1.bolt"
)

func main() {
	layout := flag.String("layout", "",
		"OCI layout to read; an image's name is its annotation "+images.AnnotationImageName)
	root := flag.String("root", "", "containerd root folder to write")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := seed(ctx, *layout, *root); err != nil {
		slog.Error("criseed", "error", err)
		os.Exit(1)
	}
}

func seed(ctx context.Context, layout, root string) (err error) {
	source, err := local.NewStore(layout)
	if err != nil {
		return fmt.Errorf("opening the OCI layout: %w", err)
	}
	raw, err := os.ReadFile(filepath.Join(layout, ocispec.ImageIndexFile))
	if err != nil {
		return fmt.Errorf("reading the OCI layout: %w", err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return fmt.Errorf("reading the OCI layout's index: %w", err)
	}

	if err := os.MkdirAll(filepath.Join(root, metadataDir), 0o711); err != nil {
		return fmt.Errorf("making containerd's root: %w", err)
	}
	blobs, err := local.NewStore(filepath.Join(root, contentDir))
	if err != nil {
		return fmt.Errorf("making the content store: %w", err)
	}
	bdb, err := bolt.Open(filepath.Join(root, metadataDir, "meta.db"), 0o644, nil)
	if err != nil {
		return fmt.Errorf("making the metadata database: %w", err)
	}
	db := metadata.NewDB(bdb, blobs, nil)
	defer func() {
		if closeErr := db.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("closing the metadata database: %w", closeErr)
		}
	}()
	if err := db.Init(ctx); err != nil {
		return fmt.Errorf("initialising the metadata database: %w", err)
	}

	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	for _, m := range index.Manifests {
		name := m.Annotations[images.AnnotationImageName]
		if name == "" {
			return fmt.Errorf("manifest %s of the OCI layout has no name", m.Digest)
		}
		m.Annotations = nil
		if err := add(ctx, db, source, name, m); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
	}
	return nil
}

// add copies one image with its blobs, and records it under its name. The image is pinned: the kubelet's garbage
// collection must not delete it, because no registry has it.
func add(ctx context.Context, db *metadata.DB, source content.Provider, name string, target ocispec.Descriptor) error {
	store := db.ContentStore()
	var copyAll images.HandlerFunc = func(ctx context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		reader, err := source.ReaderAt(ctx, desc)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", desc.Digest, err)
		}
		defer reader.Close()
		err = content.WriteBlob(ctx, store, "criseed-"+desc.Digest.String(), content.NewReader(reader), desc)
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return nil, fmt.Errorf("copying %s: %w", desc.Digest, err)
		}
		return images.Children(ctx, store, desc)
	}
	if err := images.Walk(ctx, images.SetChildrenMappedLabels(store, copyAll, images.ChildGCLabels),
		target); err != nil {
		return err
	}
	_, err := metadata.NewImageStore(db).Create(ctx, images.Image{
		Name: name, Target: target, Labels: map[string]string{"io.cri-containerd.pinned": "pinned"},
	})
	return err
}
