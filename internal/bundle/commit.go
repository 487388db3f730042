package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/filelock"
)

// describe makes the entry of an image, whose manifest is in OCI's terms.
func describe(ref Reference, rawManifest, rawConfig []byte, manifest *v1.Manifest) (entry, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(rawManifest))
	if err != nil {
		return entry{}, err
	}
	mediaType := manifest.MediaType
	if mediaType == "" { // optional in OCI manifests (image-spec, manifest.md)
		mediaType = types.OCIManifestSchema1
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return entry{}, fmt.Errorf("reading its config: %w", err)
	}
	substitute := config.Config.Labels[AnnotationSubstitute]
	annotations := map[string]string{AnnotationRef: ref.Name, AnnotationContainerd: ref.Name}
	if substitute != "" {
		annotations[AnnotationSubstitute] = substitute
	}
	e := entry{
		Entry: Entry{Ref: ref.Name, Digest: digest, Substitute: substitute},
		descriptor: v1.Descriptor{
			MediaType: mediaType, Digest: digest, Size: size, Annotations: annotations, Platform: config.Platform(),
		},
	}
	e.blobs = append([]v1.Descriptor{e.descriptor, manifest.Config}, manifest.Layers...)
	for _, d := range e.blobs {
		e.Size += d.Size
	}
	if p := config.Platform(); p != nil {
		e.Platform = p.String()
	}
	return e, nil
}

// withSource records the digest under which a registry served the image.
func (e entry) withSource(source v1.Hash) entry {
	e.Source = source
	e.descriptor = *e.descriptor.DeepCopy()
	e.descriptor.Annotations[AnnotationSource] = source.String()
	return e
}

// Commit turns what was added into the folder's bundle, in place of an earlier one,
// and removes what no longer belongs to it. The writer is of no use afterwards.
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
	if err := w.replace(indexFile, index); err != nil {
		return err
	}
	layout, err := json.Marshal(map[string]string{"imageLayoutVersion": layoutVersion})
	if err != nil {
		return err
	}
	if err := w.replace(layoutFile, layout); err != nil {
		return err
	}
	// From here on the folder is the new bundle; what follows only tidies up.
	if err := w.sweep(c); err != nil {
		return err
	}
	return w.lock.Remove()
}

// replace writes a small file whole.
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

// sweep removes blobs that no image has, the further files of an earlier bundle, and
// partial blobs. What else someone put into the folder stays. While a reader has the
// earlier bundle open, nothing is removed; the next Commit will.
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
	if err == nil { // some file systems have no locks
		defer func() { err = errors.Join(err, blobs.Unlock()) }()
	}
	names, err := dirStore{root: root}.list()
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
		_, kept := c.files[name]
		_, old := w.earlier.files[name]
		if !(old && !kept) && (keep[name] || !strings.HasPrefix(name, "blobs/")) {
			continue
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Abort gives the folder up without making a bundle of it. Blobs that are whole stay,
// for the next writer to use; an earlier bundle stays as it was. It does nothing after
// Commit, so it can be deferred.
func (w *Writer) Abort() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lock.Unlock(); err != nil {
		return fmt.Errorf("giving up the bundle in %s: %w", w.dir, err)
	}
	return nil
}
