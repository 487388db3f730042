package layer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"ambientlab/internal/atomicfile"
)

// unused is how long a compressed layer is kept that no build asked for.
const unused = 14 * 24 * time.Hour

// Gzip makes a layer's compressed form, or finds it in the cache folder under its diff ID.
//
// It is a third of the size at the fastest level, and size is what loading into nodes costs: containerd flushes
// each blob to disk. zstd would be smaller still, but a Docker engine before 23 cannot load it. The compressor is
// pinned in go.mod and runs in one goroutine, so the same content gives the same digest.
func Gzip(l v1.Layer, cache string) (v1.Layer, error) {
	diff, err := l.DiffID()
	if err != nil {
		return nil, err
	}
	out := &gzipped{Layer: l, path: filepath.Join(cache, diff.Hex+".tar.gz")}
	if err := out.read(); err == nil {
		return out, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache of layers: %w", err)
	}
	if err := out.write(); err != nil {
		return nil, fmt.Errorf("compressing layer %s: %w", diff, err)
	}
	return out, prune(cache, time.Now().Add(-unused))
}

// gzipped is a layer with its compressed form on disk.
type gzipped struct {
	v1.Layer
	path   string
	stored struct {
		Digest v1.Hash `json:"digest"`
		Size   int64   `json:"size"`
	}
}

// Digest implements v1.Layer.
func (g *gzipped) Digest() (v1.Hash, error) { return g.stored.Digest, nil }

// Size implements v1.Layer.
func (g *gzipped) Size() (int64, error) { return g.stored.Size, nil }

// MediaType implements v1.Layer.
func (g *gzipped) MediaType() (types.MediaType, error) { return types.OCILayer, nil }

// Compressed implements v1.Layer.
func (g *gzipped) Compressed() (io.ReadCloser, error) { return os.Open(g.path) }

// description is the file with the digest. It is written last: without it the layer is not there.
func (g *gzipped) description() string { return strings.TrimSuffix(g.path, ".tar.gz") + ".json" }

// read finds the layer in the cache, and marks it as used.
func (g *gzipped) read() error {
	raw, err := os.ReadFile(g.description())
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &g.stored); err != nil {
		return err
	}
	info, err := os.Stat(g.path)
	if err != nil {
		return err
	}
	if info.Size() != g.stored.Size || g.stored.Digest.Hex == "" {
		return fmt.Errorf("%s has %d bytes, not %d", g.path, info.Size(), g.stored.Size)
	}
	now := time.Now()
	return errors.Join(os.Chtimes(g.path, now, now), os.Chtimes(g.description(), now, now))
}

func (g *gzipped) write() error {
	content, err := g.Uncompressed()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := atomicfile.WriteFunc(g.path, 0o644, func(f *os.File) error {
		w, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, content); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		g.stored.Digest, g.stored.Size, err = v1.SHA256(f)
		return err
	}); err != nil {
		return err
	}
	raw, err := json.Marshal(g.stored)
	if err != nil {
		return err
	}
	return atomicfile.Write(g.description(), raw, 0o644)
}

// prune removes files of the cache that were last used before a time, and what a killed build left half-written.
func prune(cache string, before time.Time) error {
	entries, err := os.ReadDir(cache)
	if err != nil {
		return fmt.Errorf("tidying the cache of layers: %w", err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // another build tidies too
			continue
		}
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(cache, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("tidying the cache of layers: %w", err)
		}
	}
	return nil
}
