// Package layer makes image layers whose bytes depend on their content alone, and keeps them in a cache.
package layer

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ambientlab/internal/atomicfile"
)

// Compression is how a layer is stored. The compressors are pinned in go.mod and run in one goroutine, so the same
// content gives the same digest.
type Compression struct {
	// MediaType is the type of the layer: zstd for types.OCILayerZStd, gzip for all others.
	MediaType types.MediaType
	// Level is the compressor's level.
	Level int
}

func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c.MediaType == types.OCILayerZStd {
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevel(c.Level)), zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, c.Level)
}

// Layer is a layer in a cache: a compressed tar on disk. It implements v1.Layer without reading the tar again.
type Layer struct {
	path string
	info info
}

// info is the description of a layer. Its file is in the same folder as the tar.
type info struct {
	Digest    v1.Hash         `json:"digest"`
	DiffID    v1.Hash         `json:"diffID"`
	Size      int64           `json:"size"`
	MediaType types.MediaType `json:"mediaType"`
}

// Digest implements v1.Layer.
func (l *Layer) Digest() (v1.Hash, error) { return l.info.Digest, nil }

// DiffID implements v1.Layer.
func (l *Layer) DiffID() (v1.Hash, error) { return l.info.DiffID, nil }

// Size implements v1.Layer.
func (l *Layer) Size() (int64, error) { return l.info.Size, nil }

// MediaType implements v1.Layer.
func (l *Layer) MediaType() (types.MediaType, error) { return l.info.MediaType, nil }

// Compressed implements v1.Layer.
func (l *Layer) Compressed() (io.ReadCloser, error) { return os.Open(l.path) }

// Uncompressed implements v1.Layer.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	if l.info.MediaType == types.OCILayerZStd {
		d, err := zstd.NewReader(bufio.NewReader(f))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &decompressor{Reader: d, close: func() error { d.Close(); return f.Close() }}, nil
	}
	d, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &decompressor{Reader: d, close: func() error { return errors.Join(d.Close(), f.Close()) }}, nil
}

// decompressor closes a decompressor together with its file.
type decompressor struct {
	io.Reader
	close func() error
}

func (d *decompressor) Close() error { return d.close() }

// unused is how long the cache keeps a layer that no build asks for.
const unused = 14 * 24 * time.Hour

// format is part of every key. It is raised when layers of the same content are written differently.
const format = "2"

// Cache keeps layers in a folder. A killed process leaves no layer that is not complete.
type Cache struct{ Dir string }

// Files returns the layer of files, in the order of their paths and with the folders above them. It is written if the
// cache does not have a layer of the same content.
func (c Cache) Files(how Compression, files []File) (*Layer, error) {
	all, err := complete(files)
	if err != nil {
		return nil, err
	}
	content, err := Fingerprint(all)
	if err != nil {
		return nil, err
	}
	return c.Layer("files "+content, how, func(t *tar.Writer) error { return writeFiles(t, all) })
}

// Layer returns the layer with a key, which names everything that the layer is made of. If the cache does not have it,
// it is made of what write writes.
func (c Cache) Layer(key string, how Compression, write func(*tar.Writer) error) (*Layer, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %s", format, how.MediaType, how.Level, key))
	name := filepath.Join(c.Dir, hex.EncodeToString(sum[:12]))
	l := &Layer{path: name + ".tar"}
	description := name + ".json"
	if err := l.find(description); err == nil {
		return l, nil
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the cache of layers: %w", err)
	}
	if err := atomicfile.WriteFunc(l.path, 0o644, func(f *os.File) (err error) {
		l.info, err = compress(f, how, write)
		return err
	}); err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	raw, err := json.Marshal(l.info)
	if err != nil {
		return nil, err
	}
	// The description is written last: a layer without it does not exist.
	if err := atomicfile.Write(description, raw, 0o644); err != nil {
		return nil, err
	}
	return l, prune(c.Dir, time.Now().Add(-unused))
}

// find reads the description of a layer and marks the layer as used.
func (l *Layer) find(description string) error {
	raw, err := os.ReadFile(description)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &l.info); err != nil {
		return err
	}
	stat, err := os.Stat(l.path)
	if err != nil {
		return err
	}
	if stat.Size() != l.info.Size || l.info.Digest.Hex == "" {
		return fmt.Errorf("%s has %d bytes, not %d", l.path, stat.Size(), l.info.Size)
	}
	now := time.Now()
	return errors.Join(os.Chtimes(l.path, now, now), os.Chtimes(description, now, now))
}

// compress writes a compressed tar and takes both digests in one pass.
func compress(to io.Writer, how Compression, write func(*tar.Writer) error) (info, error) {
	digest, diffID := sha256.New(), sha256.New()
	count := &counter{w: io.MultiWriter(to, digest)}
	z, err := how.writer(count)
	if err != nil {
		return info{}, err
	}
	buffered := bufio.NewWriterSize(io.MultiWriter(z, diffID), 1<<20)
	t := tar.NewWriter(buffered)
	if err := write(t); err != nil {
		return info{}, err
	}
	for _, finish := range []func() error{t.Close, buffered.Flush, z.Close} {
		if err := finish(); err != nil {
			return info{}, err
		}
	}
	return info{Digest: hashOf(digest), DiffID: hashOf(diffID), Size: count.n, MediaType: how.MediaType}, nil
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// prune removes files of the cache that were last used before a time, and what killed builds left.
func prune(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("pruning the cache of layers: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another build may prune too
			return fmt.Errorf("pruning the cache of layers: %w", err)
		}
	}
	return nil
}
