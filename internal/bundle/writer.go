package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/singleflight"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/filelock"
	"ambientlab/internal/problem"
)

// stateFile marks a folder in which a bundle is being written. A writer holds its lock; a writer that was killed leaves
// the file.
const stateFile = ".unfinished"

// partialDir holds blobs that are not complete yet.
const partialDir = ".partial"

// Writer writes a bundle into a folder. Its methods are safe for concurrent use.
//
// The folder becomes a bundle with Commit. Until then an earlier bundle in the folder stays as it was. Blobs of an
// earlier bundle, or of an interrupted write, are used again after their content was checked.
//
// The writer does not use go-containerregistry's layout to write: layout changes index.json with every image, writes
// manifests in place, and keeps a blob of the right length whatever its content is.
type Writer struct {
	dir  string
	lock *filelock.Lock
	// earlier is the bundle that the folder holds; the zero value if it holds none.
	earlier contents
	writing singleflight.Group // by digest

	mu      sync.Mutex
	entries map[string]entry
	files   map[string][]byte
	whole   map[v1.Hash]bool // blobs that were written or checked
}

// Create starts to write a bundle in dir. The folder can be missing, empty, or hold a bundle, finished or not. A folder
// that holds anything else is refused, and so is a folder with another writer. The caller ends with Commit or Abort.
func Create(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("creating the bundle's folder: %w", err)
	}
	earlier, err := readEarlier(dir)
	if err != nil {
		return nil, err
	}
	lock, err := filelock.Try(filepath.Join(dir, stateFile))
	if errors.Is(err, filelock.ErrHeld) {
		return nil, problem.New(problem.BundleUnfinished, err, "the bundle in %s is being written by another run", dir).
			With("Wait for the other run to end.")
	}
	if err != nil {
		return nil, fmt.Errorf("locking the bundle's folder: %w", err)
	}
	w := &Writer{
		dir: dir, lock: lock, earlier: earlier,
		entries: map[string]entry{}, files: map[string][]byte{}, whole: map[v1.Hash]bool{},
	}
	for _, name := range []string{blobDir, partialDir} {
		if err := os.MkdirAll(w.path(name), 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("creating the bundle's folder: %w", err), lock.Unlock())
		}
	}
	return w, nil
}

// readEarlier reads the index of the bundle in dir. A folder that holds something else is the problem NotABundle.
func readEarlier(dir string) (contents, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		return contents{}, fmt.Errorf("reading the bundle's folder: %w", err)
	}
	if len(names) == 0 {
		return contents{}, nil
	}
	b, err := Open(dir)
	switch {
	case err == nil:
		return b.contents, b.Close()
	case problem.Is(err, problem.NotABundle), errors.Is(err, errIndex): // such as an OCI layout without references
		return contents{}, problem.New(problem.NotABundle, nil,
			"%s is not empty and is not a bundle; it is not changed", dir).
			With("Give the name of a folder that does not exist yet.")
	case problem.Is(err, problem.BundleUnfinished), problem.Is(err, problem.BundleCorrupt):
		return contents{}, nil // its whole blobs are used
	default:
		return contents{}, err
	}
}

func (w *Writer) path(name string) string { return filepath.Join(w.dir, filepath.FromSlash(name)) }

// Add writes an image under a reference and replaces an image that this writer added under it before. substitute says
// what the image is if it is not what ref says; the label lab.substitute of the image must have the same value.
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
	raw, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("reading its manifest: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("reading its config: %w", err)
	}
	source, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if ref.Digest != (v1.Hash{}) && ref.Digest != source {
		return fmt.Errorf("the image has the digest %s", source)
	}
	e, raw, err := describe(ref, raw, config)
	if err != nil {
		return err
	}
	if e.Substitute != substitute {
		return fmt.Errorf("the image's label %s is %q, not %q", AnnotationSubstitute, e.Substitute, substitute)
	}
	if e.Digest != source {
		e = e.withSource(source)
	}
	layers, err := img.Layers()
	if err != nil {
		return fmt.Errorf("reading its layers: %w", err)
	}
	for i, layer := range layers {
		if err := w.put(ctx, e.layers()[i], layer.Compressed); err != nil {
			return err
		}
	}
	return w.enter(ctx, e, raw, config)
}

// enter writes the manifest and the config of an image whose layers are in the folder, and puts it into the index.
func (w *Writer) enter(ctx context.Context, e entry, manifest, config []byte) error {
	if err := errors.Join(w.putBytes(ctx, e.descriptor, manifest), w.putBytes(ctx, e.config(), config)); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.entries[e.Ref] = e
	return nil
}

// takeOver puts an image of the earlier bundle into the index, if the earlier bundle has it complete, for the platform,
// and from the same digest.
func (w *Writer) takeOver(ref Reference, source v1.Hash, platform v1.Platform) (Entry, bool) {
	for _, e := range w.earlier.entries {
		if e.Ref != ref.Name || e.Source != source || e.descriptor.Platform == nil ||
			!e.descriptor.Platform.Satisfies(platform) {
			continue
		}
		for _, d := range e.blobs {
			if have, err := w.have(d); err != nil || !have {
				return Entry{}, false
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.entries[e.Ref] = e
		return e.Entry, true
	}
	return Entry{}, false
}

// AddFile adds a small file to the bundle, such as its bill of materials. Its digest goes into the index.
func (w *Writer) AddFile(name string, content []byte) error {
	if err := checkFileName(name); err != nil {
		return fmt.Errorf("adding a file to the bundle: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files[name] = bytes.Clone(content)
	return nil
}

// Commit makes the folder a bundle of what was added, in place of an earlier bundle, and removes what belongs to the
// earlier bundle only. The writer cannot be used afterwards.
func (w *Writer) Commit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.commit(); err != nil {
		return errors.Join(fmt.Errorf("finishing the bundle in %s: %w", w.dir, err), w.lock.Unlock())
	}
	return nil
}

func (w *Writer) commit() error {
	c := contents{files: map[string]v1.Hash{}}
	for _, e := range w.entries {
		c.entries = append(c.entries, e)
	}
	for name, content := range w.files {
		hash, _, err := v1.SHA256(bytes.NewReader(content))
		if err != nil {
			return err
		}
		c.files[name] = hash
		if err := w.replace(name, content); err != nil {
			return err
		}
	}
	index, err := c.encode()
	if err != nil {
		return err
	}
	layout, err := json.Marshal(map[string]string{"imageLayoutVersion": layoutVersion})
	if err != nil {
		return err
	}
	if err := w.replace(indexFile, index); err != nil {
		return err
	}
	if err := w.replace(layoutFile, layout); err != nil {
		return err
	}
	// The folder is the new bundle now.
	if err := w.sweep(c); err != nil {
		return err
	}
	return w.lock.Remove()
}

// replace writes a file of the layout. Its temporary file is in partialDir, where the next Commit removes it if this
// one is killed.
func (w *Writer) replace(name string, content []byte) error {
	f, err := os.CreateTemp(w.path(partialDir), "file-*")
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return errors.Join(err, f.Close())
	}
	return atomicfile.Replace(f, w.path(name), 0o644)
}

// sweep removes the blobs that no image needs, the further files of the earlier bundle, and partial blobs. Other files
// stay. While a reader has the earlier bundle open, nothing is removed; the next Commit does it.
func (w *Writer) sweep(c contents) (err error) {
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.RemoveAll(partialDir); err != nil {
		return err
	}
	blobs, err := filelock.TryFolder(w.path(blobDir))
	if errors.Is(err, filelock.ErrHeld) {
		return nil
	}
	if err == nil { // otherwise the file system has no locks, and readers have none either
		defer func() { err = errors.Join(err, blobs.Unlock()) }()
	}
	names, err := regularFiles(root.FS())
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, e := range c.entries {
		for _, d := range e.blobs {
			keep[blobName(d.Digest)] = true
		}
	}
	for _, name := range names {
		_, current := c.files[name]
		_, earlier := w.earlier.files[name]
		unneeded := strings.HasPrefix(name, "blobs/") && !keep[name] || earlier && !current
		if !unneeded {
			continue
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Abort stops writing. Complete blobs stay for the next writer, and an earlier bundle stays as it was. After Commit it
// does nothing, so it can be deferred.
func (w *Writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lock.Unlock(); err != nil {
		return fmt.Errorf("aborting the bundle in %s: %w", w.dir, err)
	}
	return nil
}
