package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image gives the image of a reference. Its layers are checked as they are read: one
// that was altered ends in an error that names the blob.
func (b *Bundle) Image(ref string) (v1.Image, error) {
	e, err := b.find(ref)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&stored{bundle: b, entry: e})
}

// stored is the core of an image in a bundle.
type stored struct {
	bundle *Bundle
	entry  entry
}

func (s *stored) RawManifest() ([]byte, error) {
	raw, err := s.bundle.document(s.entry.descriptor)
	if err != nil {
		return nil, s.bundle.corrupt(err)
	}
	return raw, nil
}

func (s *stored) RawConfigFile() ([]byte, error) {
	raw, err := s.bundle.document(s.entry.blobs[1])
	if err != nil {
		return nil, s.bundle.corrupt(err)
	}
	return raw, nil
}

func (s *stored) MediaType() (types.MediaType, error) { return s.entry.descriptor.MediaType, nil }

func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	for _, d := range s.entry.blobs[1:] {
		if d.Digest == h {
			return storedLayer{bundle: s.bundle, descriptor: d}, nil
		}
	}
	return nil, fmt.Errorf("%s has no layer %s", s.entry.Ref, h)
}

// Descriptor makes the index's annotations reach whoever copies the image.
func (s *stored) Descriptor() (*v1.Descriptor, error) { return s.entry.descriptor.DeepCopy(), nil }

type storedLayer struct {
	bundle     *Bundle
	descriptor v1.Descriptor
}

func (l storedLayer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l storedLayer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l storedLayer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }
func (l storedLayer) Descriptor() (*v1.Descriptor, error) { return l.descriptor.DeepCopy(), nil }
func (l storedLayer) Compressed() (io.ReadCloser, error)  { return l.bundle.blob(l.descriptor) }

// blob opens a blob for one checked reading.
func (b *Bundle) blob(d v1.Descriptor) (io.ReadCloser, error) {
	f, err := b.store.open(blobName(d.Digest))
	if err != nil {
		return nil, b.corrupt(fmt.Errorf("blob %s: %w", d.Digest, err))
	}
	return &checked{file: f, want: d, hash: sha256.New(), wrap: b.corrupt}, nil
}

// checked is a blob that is hashed while it is read; its last Read returns an error
// instead of io.EOF when the content is not what the descriptor says.
type checked struct {
	file io.ReadCloser
	want v1.Descriptor
	hash hash.Hash
	read int64
	wrap func(error) error
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.hash.Write(p[:n])
	c.read += int64(n)
	if c.read > c.want.Size {
		return n, c.wrap(fmt.Errorf("blob %s is altered: it has more than its %d bytes", c.want.Digest, c.want.Size))
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if c.read < c.want.Size {
		return n, c.wrap(fmt.Errorf("blob %s is truncated: %d of %d bytes", c.want.Digest, c.read, c.want.Size))
	}
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(c.hash.Sum(nil))}
	if got != c.want.Digest {
		return n, c.wrap(alteredError{want: c.want.Digest, got: got})
	}
	return n, io.EOF
}

func (c *checked) Close() error { return c.file.Close() }

// rawOf returns the small documents of any image: manifest and config.
func rawOf(img v1.Image) (manifest, config []byte, parsed *v1.Manifest, err error) {
	if manifest, err = img.RawManifest(); err != nil {
		return nil, nil, nil, fmt.Errorf("reading its manifest: %w", err)
	}
	if config, err = img.RawConfigFile(); err != nil {
		return nil, nil, nil, fmt.Errorf("reading its config: %w", err)
	}
	if parsed, err = v1.ParseManifest(bytes.NewReader(manifest)); err != nil {
		return nil, nil, nil, fmt.Errorf("reading its manifest: %w", err)
	}
	return manifest, config, parsed, nil
}
