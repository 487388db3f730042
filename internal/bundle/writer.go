package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// stateFile marks a folder in which a bundle is being written, and locks it: while a
// writer lives it holds the lock, and a dead one leaves the file.
const stateFile = ".unfinished"

// partialDir holds blobs that are not whole yet.
const partialDir = ".partial"

// Writer writes a bundle into a folder. Its methods are safe for concurrent use.
//
// What it has written passes for a bundle only after Commit. The blobs of an earlier
// bundle in the folder, or of a write that was cut short, are used again once their
// content was checked; until Commit an earlier bundle stays as it was.
type Writer struct {
	dir  string
	lock *lock
	// earlier are the entries of the bundle that the folder already holds.
	earlier []entry

	mu      sync.Mutex
	entries map[string]entry
	files   map[string][]byte
	blobs   map[v1.Hash]*flight
}

// flight is a blob being put in place. err may be read once done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// Create starts writing a bundle in dir, which may be missing, empty, or hold a bundle,
// finished or not. A folder that holds anything else is refused, and so is one that
// another writer is at work in. The caller ends with Commit or Abort.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the bundle's folder: %w", err)
	}
	earlier, err := survey(dir)
	if err != nil {
		return nil, err
	}
	l, err := acquire(filepath.Join(dir, stateFile))
	if errors.Is(err, errLocked) {
		return nil, problem.New(problem.BundleUnfinished, err, "the bundle in %s is being written by another run", dir).
			With("Wait for the other run to end.")
	}
	if err != nil {
		return nil, fmt.Errorf("locking the bundle's folder: %w", err)
	}
	w := &Writer{
		dir: dir, lock: l, earlier: earlier,
		entries: map[string]entry{}, files: map[string][]byte{}, blobs: map[v1.Hash]*flight{},
	}
	for _, name := range []string{blobDir, partialDir} {
		if err := os.MkdirAll(w.path(name), 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("making the bundle's folder: %w", err), l.release())
		}
	}
	return w, nil
}

// survey says what dir holds: the entries of a bundle, nothing, or something that
// must not be written into.
func survey(dir string) ([]entry, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("looking into the bundle's folder: %w", err)
	}
	if len(names) == 0 {
		return nil, nil
	}
	b, err := Open(dir)
	switch {
	case err == nil:
		entries := b.entries
		return entries, b.Close()
	case problem.Is(err, problem.BundleUnfinished), problem.Is(err, problem.BundleCorrupt):
		return nil, nil // its whole blobs are worth keeping
	case problem.Is(err, problem.NotABundle):
		return nil, problem.New(problem.NotABundle, nil,
			"%s is not empty and is not a bundle; it is left alone", dir).
			With("Give the name of a folder that does not exist yet.")
	default:
		return nil, err
	}
}

func (w *Writer) path(name string) string { return filepath.Join(w.dir, filepath.FromSlash(name)) }

// Add writes an image under a reference, in place of any that this writer added under
// it before. substitute says what the image really is, and is empty if it is what ref
// says; the label lab.substitute of the image must say the same.
func (w *Writer) Add(ctx context.Context, ref string, img v1.Image, substitute string) error {
	parsed, err := ParseReference(ref)
	if err != nil {
		return err
	}
	if err := w.add(ctx, parsed, img, substitute); err != nil {
		return fmt.Errorf("adding %s to the bundle: %w", parsed, err)
	}
	return nil
}

func (w *Writer) add(ctx context.Context, ref Reference, img v1.Image, substitute string) error {
	rawManifest, rawConfig, manifest, err := rawOf(img)
	if err != nil {
		return err
	}
	e, err := describe(ref, rawManifest, rawConfig, manifest)
	if err != nil {
		return err
	}
	if e.Substitute != substitute {
		return fmt.Errorf("the image's label %s is %q, not %q", AnnotationSubstitute, e.Substitute, substitute)
	}
	if ref.Digest != (v1.Hash{}) && ref.Digest != e.Digest {
		return fmt.Errorf("the image has the digest %s", e.Digest)
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("reading its layers: %w", err)
	}
	for i, layer := range layers {
		if err := w.put(ctx, manifest.Layers[i], layer.Compressed); err != nil {
			return err
		}
	}
	return w.enter(ctx, e, rawManifest, rawConfig)
}

// enter writes an image's manifest and config, its layers being there, and takes it
// into the index to be.
func (w *Writer) enter(ctx context.Context, e entry, rawManifest, rawConfig []byte) error {
	for i, raw := range [][]byte{rawManifest, rawConfig} {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
		if err := w.put(ctx, e.blobs[i], open); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries[e.Ref] = e
	return nil
}

// AddFile puts a further small file into the bundle, such as its bill of materials.
// Its digest goes into the index.
func (w *Writer) AddFile(name string, content []byte) error {
	if err := checkFileName(name); err != nil {
		return fmt.Errorf("adding a file to the bundle: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[name] = bytes.Clone(content)
	return nil
}

// put puts a blob in place, unless it is there already. Two callers with one blob
// share the work.
func (w *Writer) put(ctx context.Context, d v1.Descriptor, open func() (io.ReadCloser, error)) error {
	return w.once(ctx, d, func() error {
		r, err := open()
		if err != nil {
			return fmt.Errorf("reading blob %s: %w", d.Digest, err)
		}
		defer r.Close()
		return w.copyBlob(ctx, d, r)
	})
}

// once runs write for a blob that is not there yet, one caller at a time. A caller
// whose forerunner failed tries by itself: the failure may have been its context's.
func (w *Writer) once(ctx context.Context, d v1.Descriptor, write func() error) error {
	for {
		w.mu.Lock()
		f, running := w.blobs[d.Digest]
		if !running {
			f = &flight{done: make(chan struct{})}
			w.blobs[d.Digest] = f
		}
		w.mu.Unlock()
		if !running {
			return w.fly(f, d, write)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.err == nil {
			return nil
		}
	}
}

func (w *Writer) fly(f *flight, d v1.Descriptor, write func() error) error {
	defer close(f.done)
	have, err := w.have(d)
	if err == nil && !have {
		err = write()
	}
	if f.err = err; err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.blobs, d.Digest)
	}
	return err
}

// have tells whether a blob lies in the folder whole. One that was altered is removed.
func (w *Writer) have(d v1.Descriptor) (bool, error) {
	if _, err := parseHash(d.Digest.String()); err != nil {
		return false, err
	}
	name := w.path(blobName(d.Digest))
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for blob %s: %w", d.Digest, err)
	}
	got, size, err := v1.SHA256(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("checking blob %s: %w", d.Digest, err)
	}
	if got == d.Digest && size == d.Size {
		return true, nil
	}
	if err := os.Remove(name); err != nil {
		return false, fmt.Errorf("removing the altered blob %s: %w", d.Digest, err)
	}
	return false, nil
}

func (w *Writer) copyBlob(ctx context.Context, d v1.Descriptor, r io.Reader) (err error) {
	f, err := os.CreateTemp(w.path(partialDir), "put-*")
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), untilDone{ctx, r})
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	}
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
	if got != d.Digest || size != d.Size {
		return fmt.Errorf("blob %s of %d bytes turned out to be %s of %d bytes", d.Digest, d.Size, got, size)
	}
	return settle(f, w.path(blobName(d.Digest)))
}

// settle closes a written file and gives it its name, so that the name never stands
// for less than the whole content, even after a power cut.
func settle(f *os.File, name string) error {
	if err := f.Chmod(0o644); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// untilDone is a reader that ends with its context's cause.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}
