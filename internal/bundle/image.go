package bundle

import (
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

// Image returns the image of a reference. Its layers are checked while they are read: reading an altered layer ends
// with an error that names the blob.
func (b *Bundle) Image(ref string) (v1.Image, error) {
	e, err := b.find(ref)
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&stored{bundle: b, entry: e})
}

// stored is an image in a bundle, as partial completes it.
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
	raw, err := s.bundle.document(s.entry.config())
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

// Descriptor returns the descriptor in the index, so that copies of the image keep its annotations.
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

// blob opens a blob. Its content is checked while it is read.
func (b *Bundle) blob(d v1.Descriptor) (io.ReadCloser, error) {
	f, err := b.store.Open(blobName(d.Digest))
	if err != nil {
		return nil, b.corrupt(fmt.Errorf("blob %s: %w", d.Digest, err))
	}
	return &checked{file: f, want: d.Digest, hash: sha256.New(), wrap: b.corrupt}, nil
}

// checked is a blob that is hashed while it is read. If the content is not what its digest says, the last Read returns
// an error in place of io.EOF.
type checked struct {
	file io.ReadCloser
	want v1.Hash
	hash hash.Hash
	wrap func(error) error
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.hash.Write(p[:n])
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if got := (v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(c.hash.Sum(nil))}); got != c.want {
		return n, c.wrap(altered(c.want, got))
	}
	return n, io.EOF
}

func (c *checked) Close() error { return c.file.Close() }
