package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/filelock"
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
	lock *filelock.Lock
	// earlier is what the folder already holds; the zero value if that is no bundle.
	earlier contents

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
	l, err := filelock.Try(filepath.Join(dir, stateFile))
	if errors.Is(err, filelock.ErrHeld) {
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
			return nil, errors.Join(fmt.Errorf("making the bundle's folder: %w", err), l.Unlock())
		}
	}
	return w, nil
}

// survey says what dir holds: a bundle, nothing, or something that must not be written
// into.
func survey(dir string) (contents, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return contents{}, fmt.Errorf("looking into the bundle's folder: %w", err)
	}
	if len(names) == 0 {
		return contents{}, nil
	}
	b, err := Open(dir)
	switch {
	case err == nil:
		return contents{entries: b.entries, files: b.files}, b.Close()
	case problem.Is(err, problem.NotABundle), errors.Is(err, errIndex): // an OCI layout of another kind, for one
		return contents{}, problem.New(problem.NotABundle, nil,
			"%s is not empty and is not a bundle; it is left alone", dir).
			With("Give the name of a folder that does not exist yet.")
	case problem.Is(err, problem.BundleUnfinished), problem.Is(err, problem.BundleCorrupt):
		return contents{}, nil // what blobs are whole is worth keeping
	default:
		return contents{}, err
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
	digest, _, err := v1.SHA256(bytes.NewReader(rawManifest))
	if err != nil {
		return err
	}
	if ref.Digest != (v1.Hash{}) && ref.Digest != digest {
		return fmt.Errorf("the image has the digest %s", digest)
	}
	if rawManifest, manifest, err = toOCI(rawManifest, manifest); err != nil {
		return err
	}
	e, err := describe(ref, rawManifest, rawConfig, manifest)
	if err != nil {
		return err
	}
	if e.Substitute != substitute {
		return fmt.Errorf("the image's label %s is %q, not %q", AnnotationSubstitute, e.Substitute, substitute)
	}
	if e.Digest != digest {
		e = e.withSource(digest)
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
		if err := w.putBytes(ctx, e.blobs[i], raw); err != nil {
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
