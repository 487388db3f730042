package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// Bundle is an open bundle. It is safe for concurrent use.
type Bundle struct {
	contents
	path  string
	store files
}

// whatItIs ends the message about a file that is not a bundle.
const whatItIs = "a bundle is an OCI image layout: a folder, or a .tar of one, with oci-layout, " +
	"index.json and blobs/sha256"

// Open opens the bundle at path, a folder or a .tar of one. It reads the index and the manifests, checks their digests,
// and checks that every blob exists with its full length. Verify reads the blobs too. The error is a problem that says
// whether the bundle is damaged, unfinished, or no bundle.
func Open(path string) (*Bundle, error) {
	store, err := openFiles(path)
	if err != nil {
		return nil, err
	}
	b := &Bundle{path: path, store: store}
	if err := b.read(); err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return b, nil
}

func openFiles(path string) (files, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.New(problem.NotABundle, nil, "there is no bundle at %s", path)
	case err != nil:
		return nil, fmt.Errorf("opening the bundle: %w", err)
	case info.IsDir():
		f, err := openFolder(path)
		if err != nil {
			return nil, fmt.Errorf("opening the bundle: %w", err)
		}
		return f, nil
	case !info.Mode().IsRegular():
		return nil, notABundle(path, nil)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the bundle: %w", err)
	}
	a, err := openArchive(file)
	switch {
	case errors.Is(err, errCut):
		return nil, errors.Join(corrupt(path, err), file.Close())
	case err != nil:
		return nil, errors.Join(notABundle(path, err), file.Close())
	}
	return a, nil
}

func notABundle(path string, err error) error {
	return problem.New(problem.NotABundle, err, "%s is not a bundle; %s", path, whatItIs)
}

func corrupt(path string, err error) error {
	return problem.New(problem.BundleCorrupt, err, "the bundle %s is damaged", path)
}

func (b *Bundle) corrupt(err error) error { return corrupt(b.path, err) }

// errIndex says that a folder has an index.json that is not that of a bundle.
var errIndex = errors.New("its index cannot be used")

// read reads the index and the manifests.
func (b *Bundle) read() error {
	layout, layoutErr := readDocument(b.store, layoutFile)
	index, indexErr := readDocument(b.store, indexFile)
	if err := errors.Join(layoutErr, indexErr); err != nil {
		if _, err := fs.Stat(b.store, stateFile); err == nil {
			return problem.New(problem.BundleUnfinished, nil, "the bundle in %s was never finished", b.path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return notABundle(b.path, err)
		}
		return fmt.Errorf("reading the bundle %s: %w", b.path, err)
	}
	if err := parseLayout(layout); err != nil {
		return notABundle(b.path, err)
	}
	var err error
	if b.contents, err = parseIndex(index); err != nil {
		return b.corrupt(fmt.Errorf("%w: %w", errIndex, err))
	}
	for i := range b.entries {
		if err := b.readEntry(&b.entries[i]); err != nil {
			return b.corrupt(err)
		}
	}
	return nil
}

// readEntry reads the manifest of an entry and checks that its blobs exist.
func (b *Bundle) readEntry(e *entry) error {
	raw, err := b.document(e.descriptor)
	if err != nil {
		return fmt.Errorf("manifest of %s: %w", e.Ref, err)
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("manifest of %s, blob %s: %w", e.Ref, e.Digest, err)
	}
	e.blobs = append([]v1.Descriptor{e.descriptor, manifest.Config}, manifest.Layers...)
	for _, d := range e.blobs {
		if _, err := parseHash(d.Digest.String()); err != nil {
			return fmt.Errorf("manifest of %s, blob %s: %w", e.Ref, e.Digest, err)
		}
		if err := b.checkSize(d); err != nil {
			return fmt.Errorf("%s: %w", e.Ref, err)
		}
		e.Size += d.Size
	}
	return nil
}

// checkSize checks that a blob exists with the length of its descriptor.
func (b *Bundle) checkSize(d v1.Descriptor) error {
	info, err := fs.Stat(b.store, blobName(d.Digest))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("blob %s is missing", d.Digest)
	case err != nil:
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("blob %s is not a file", d.Digest)
	case info.Size() < d.Size:
		return fmt.Errorf("blob %s is truncated: %d of %d bytes", d.Digest, info.Size(), d.Size)
	case info.Size() > d.Size:
		return fmt.Errorf("blob %s is altered: it has %d bytes, not %d", d.Digest, info.Size(), d.Size)
	}
	return nil
}

// document reads a small blob and checks its digest.
func (b *Bundle) document(d v1.Descriptor) ([]byte, error) {
	if err := b.checkSize(d); err != nil {
		return nil, err
	}
	raw, err := readDocument(b.store, blobName(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if got, _, err := v1.SHA256(bytes.NewReader(raw)); err != nil || got != d.Digest {
		return nil, errors.Join(altered(d.Digest, got), err)
	}
	return raw, nil
}

// altered is the error of a blob whose content is not what its name says.
func altered(want, got v1.Hash) error {
	return fmt.Errorf("blob %s is altered: its content has the digest %s", want, got)
}

// Path is the path that the bundle was opened with.
func (b *Bundle) Path() string { return b.path }

// Close closes the bundle's files. Images of the bundle cannot be read afterwards.
func (b *Bundle) Close() error { return b.store.Close() }

// Images returns the images in the order of the index, which is that of their references.
func (b *Bundle) Images() []Entry {
	out := make([]Entry, 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, e.Entry)
	}
	return out
}

// Lookup finds an image by its reference, in any of its forms. A digest in ref must be that of the image, or the one
// under which the registry served it. If there is no such image, the error is the problem ImageMissing.
func (b *Bundle) Lookup(ref string) (Entry, error) {
	e, err := b.find(ref)
	return e.Entry, err
}

func (b *Bundle) find(ref string) (entry, error) {
	want, err := ParseReference(ref)
	if err != nil {
		return entry{}, err
	}
	for _, e := range b.entries {
		if !want.matches(e) {
			continue
		}
		if want.Digest != (v1.Hash{}) && want.Digest != e.Digest && want.Digest != e.Source {
			return entry{}, problem.New(problem.ImageMissing, nil,
				"the bundle %s holds %s, but with digest %s", filepath.Base(b.path), e.Ref, e.Digest)
		}
		return e, nil
	}
	return entry{}, problem.New(problem.ImageMissing, nil, "the bundle %s does not hold %s", b.path, want)
}

// matches tells whether an entry is what the reference names. A reference with a digest and no tag names every image of
// its repository that has the digest, whatever its tag.
func (r Reference) matches(e entry) bool {
	if e.Ref == r.Name {
		return true
	}
	byDigest := r.Name == r.Repository+"@"+r.Digest.String()
	if !byDigest || (e.Digest != r.Digest && e.Source != r.Digest) {
		return false
	}
	have, err := ParseReference(e.Ref)
	return err == nil && have.Repository == r.Repository
}

// file reads a further file of the bundle, such as its bill of materials, and checks its digest.
func (b *Bundle) file(name string) ([]byte, error) {
	want, ok := b.files[name]
	if !ok {
		return nil, fmt.Errorf("the bundle %s: %s: %w", b.path, name, fs.ErrNotExist)
	}
	raw, err := readDocument(b.store, name)
	if err != nil {
		return nil, b.corrupt(err)
	}
	if got, _, err := v1.SHA256(bytes.NewReader(raw)); err != nil || got != want {
		return nil, b.corrupt(
			errors.Join(fmt.Errorf("file %s is altered: its content has the digest %s, not %s", name, got, want), err))
	}
	return raw, nil
}
