package nodeimage

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

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"ambientlab/internal/atomicfile"
)

// compression is how a layer is stored.
type compression struct {
	mediaType types.MediaType
	level     int
}

var (
	// Layers of the node image are gzip: Docker engines older than 23 load nothing newer. Level 1 halves them at four
	// times the speed of the default.
	gzipFast = compression{types.DockerLayer, gzip.BestSpeed}
	// The layer of the images inside holds layers that are compressed already.
	gzipStore = compression{types.DockerLayer, gzip.NoCompression}
	// Layers of the images inside are unpacked on every node of every cluster, where zstd costs a third of gzip.
	zstdDefault = compression{types.OCILayerZStd, int(zstd.SpeedDefault)}
)

func (c compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c.mediaType == types.OCILayerZStd {
		// One goroutine: the same input must give the same bytes.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevel(c.level)), zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, c.level)
}

// fileLayer is a layer in the cache: a compressed tar and, beside it, what is known of it. It implements v1.Layer
// without reading the file again.
type fileLayer struct {
	path string
	info layerInfo
}

type layerInfo struct {
	Digest    v1.Hash         `json:"digest"`
	DiffID    v1.Hash         `json:"diffID"`
	Size      int64           `json:"size"`
	MediaType types.MediaType `json:"mediaType"`
}

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.info.Digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.info.DiffID, nil }
func (l *fileLayer) Size() (int64, error)                 { return l.info.Size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return l.info.MediaType, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return l.decompress() }

func (l *fileLayer) decompress() (io.ReadCloser, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, err
	}
	if l.info.MediaType == types.OCILayerZStd {
		d, err := zstd.NewReader(bufio.NewReader(f))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		return &both{Reader: d, close: func() error { d.Close(); return f.Close() }}, nil
	}
	d, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &both{Reader: d, close: func() error { return errors.Join(d.Close(), f.Close()) }}, nil
}

// both closes a decompressor together with its file.
type both struct {
	io.Reader
	close func() error
}

func (b *both) Close() error { return b.close() }

// layerCache keeps layers by a key that names everything they are made of.
type layerCache struct{ dir string }

// layer gives the cached layer of that key, or writes it. A layer counts as cached only once its description is in
// place, which is written last and renamed, so an interrupted write is simply written again.
func (c layerCache) layer(key string, how compression, write func(*tar.Writer) error) (*fileLayer, error) {
	path := filepath.Join(c.dir, key+".tar")
	described := filepath.Join(c.dir, key+".json")
	if l, err := readLayer(path, described); err == nil {
		return l, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the cached layer %s: %w", described, err)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the layer cache: %w", err)
	}
	var info layerInfo
	if err := atomicfile.WriteFunc(path, 0o644, func(f *os.File) (err error) {
		info, err = compressTar(f, how, write)
		return err
	}); err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	raw, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(described, raw, 0o644); err != nil {
		return nil, err
	}
	return &fileLayer{path: path, info: info}, nil
}

func readLayer(path, described string) (*fileLayer, error) {
	raw, err := os.ReadFile(described)
	if err != nil {
		return nil, err
	}
	l := &fileLayer{path: path}
	if err := json.Unmarshal(raw, &l.info); err != nil {
		return nil, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if stat.Size() != l.info.Size {
		return nil, fs.ErrNotExist // Cut short by somebody else: make it again.
	}
	return l, nil
}

// compressTar writes a tar, compresses it and takes both digests in one pass.
func compressTar(to io.Writer, how compression, write func(*tar.Writer) error) (layerInfo, error) {
	digest, diffID := sha256.New(), sha256.New()
	count := &counter{w: io.MultiWriter(to, digest)}
	z, err := how.writer(count)
	if err != nil {
		return layerInfo{}, err
	}
	buffered := bufio.NewWriterSize(io.MultiWriter(z, diffID), 1<<20)
	t := tar.NewWriter(buffered)
	if err := write(t); err != nil {
		return layerInfo{}, err
	}
	for _, finish := range []func() error{t.Close, buffered.Flush, z.Close} {
		if err := finish(); err != nil {
			return layerInfo{}, fmt.Errorf("finishing a layer: %w", err)
		}
	}
	return layerInfo{Digest: hashOf(digest), DiffID: hashOf(diffID), Size: count.n, MediaType: how.mediaType}, nil
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
