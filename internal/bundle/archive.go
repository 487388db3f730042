package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// writeArchive writes images as the tar of an OCI layout, which `ctr images import` reads. Blobs of the held images are
// left out: containerd has them. It adds the bytes of blobs to sent.
//
// index.json comes last. containerd takes an archive that ends early for a complete one, because archive/tar reads a
// missing trailer as the end, but it refuses an archive without an index.
func (b *Bundle) writeArchive(ctx context.Context, w io.Writer, images, held []named, sent *int64) error {
	archive := tar.NewWriter(w)
	layout := []byte(`{"imageLayoutVersion":"` + layoutVersion + `"}`)
	if err := writeMember(archive, layoutFile, int64(len(layout)), bytes.NewReader(layout)); err != nil {
		return err
	}
	done := map[v1.Hash]bool{}
	for _, image := range held {
		for _, d := range image.blobs {
			done[d.Digest] = true
		}
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, image := range images {
		for _, d := range image.blobs {
			if done[d.Digest] {
				continue
			}
			done[d.Digest] = true
			if err := b.writeBlob(ctx, archive, d); err != nil {
				return err
			}
			*sent += d.Size
		}
		for _, name := range image.names {
			d := image.descriptor.DeepCopy()
			d.Annotations = map[string]string{AnnotationContainerd: name, AnnotationRef: name}
			index.Manifests = append(index.Manifests, *d)
		}
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := writeMember(archive, indexFile, int64(len(raw)), bytes.NewReader(raw)); err != nil {
		return err
	}
	return archive.Close()
}

func (b *Bundle) writeBlob(ctx context.Context, archive *tar.Writer, d v1.Descriptor) (err error) {
	content, err := b.blob(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	return writeMember(archive, blobName(d.Digest), d.Size, untilDone{ctx, content})
}

func writeMember(archive *tar.Writer, name string, size int64, content io.Reader) error {
	header := &tar.Header{
		Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0),
		Format: tar.FormatPAX,
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}
