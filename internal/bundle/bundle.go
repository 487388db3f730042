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
	path    string
	store   store
	entries []entry
	files   map[string]v1.Hash
}

// whatItIs ends the message about a file that is no bundle.
const whatItIs = "a bundle is an OCI image layout: a folder, or a .tar of one, with oci-layout, index.json and blobs/sha256"

// Open opens the bundle at path, a folder or a .tar of one. It reads index and
// manifests, checks their digests, and that every blob is there in its full length;
// Verify reads the blobs too. What is no bundle, unfinished or damaged is a problem
// that says which.
func Open(path string) (*Bundle, error) {
	s, err := openStore(path)
	if err != nil {
		return nil, err
	}
	b := &Bundle{path: path, store: s}
	if err := b.read(); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return b, nil
}

func openStore(path string) (store, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, problem.New(problem.NotABundle, nil, "there is no bundle at %s", path)
	case err != nil:
		return nil, fmt.Errorf("opening the bundle: %w", err)
	case info.IsDir():
		s, err := openDir(path)
		if err != nil {
			return nil, fmt.Errorf("opening the bundle: %w", err)
		}
		return s, nil
	case !info.Mode().IsRegular():
		return nil, problem.New(problem.NotABundle, nil, "%s is neither a folder nor a file; %s", path, whatItIs)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the bundle: %w", err)
	}
	s, err := openTar(f)
	if errors.Is(err, errCut) {
		return nil, errors.Join(problem.New(problem.BundleCorrupt, err, "the bundle %s is damaged", path), f.Close())
	}
	if err != nil {
		return nil, errors.Join(problem.New(problem.NotABundle, err, "%s is not a bundle; %s", path, whatItIs), f.Close())
	}
	return s, nil
}

// errIndex says that an index.json is there and is not that of a bundle.
var errIndex = errors.New("its index cannot be used")

// read fills in what the index and the manifests say.
func (b *Bundle) read() error {
	layout, layoutErr := readDocument(b.store, layoutFile)
	index, indexErr := readDocument(b.store, indexFile)
	if err := errors.Join(layoutErr, indexErr); err != nil {
		if _, err := b.store.size(stateFile); err == nil {
			return problem.New(problem.BundleUnfinished, nil, "the bundle in %s was never finished", b.path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return problem.New(problem.NotABundle, err, "%s is not a bundle; %s", b.path, whatItIs)
		}
		return fmt.Errorf("reading the bundle %s: %w", b.path, err)
	}
	if err := parseLayout(layout); err != nil {
		return problem.New(problem.NotABundle, err, "%s is not a bundle; %s", b.path, whatItIs)
	}
	c, err := parseIndex(index)
	if err != nil {
		return problem.New(problem.BundleCorrupt, fmt.Errorf("%w: %w", errIndex, err), "the bundle %s is damaged", b.path)
	}
	b.files = c.files
	for _, e := range c.entries {
		if err := b.readEntry(&e); err != nil {
			return b.corrupt(err)
		}
		b.entries = append(b.entries, e)
	}
	return nil
}

// readEntry reads an entry's manifest and looks for its blobs.
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
		if err := checkSize(b.store, d); err != nil {
			return fmt.Errorf("%s: %w", e.Ref, err)
		}
		e.Size += d.Size
	}
	return nil
}

// checkSize tells whether a blob is there with the length that its descriptor gives.
func checkSize(s store, d v1.Descriptor) error {
	size, err := s.size(blobName(d.Digest))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("blob %s is missing", d.Digest)
	case err != nil:
		return fmt.Errorf("blob %s: %w", d.Digest, err)
	case size < d.Size:
		return fmt.Errorf("blob %s is truncated: %d of %d bytes", d.Digest, size, d.Size)
	case size > d.Size:
		return fmt.Errorf("blob %s is altered: %d bytes where there should be %d", d.Digest, size, d.Size)
	}
	return nil
}

// document reads a small blob whole and checks its digest.
func (b *Bundle) document(d v1.Descriptor) ([]byte, error) {
	if err := checkSize(b.store, d); err != nil {
		return nil, err
	}
	raw, err := readDocument(b.store, blobName(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, err)
	}
	if got != d.Digest {
		return nil, alteredError{want: d.Digest, got: got}
	}
	return raw, nil
}

// alteredError is for a blob whose content is not what its name says.
type alteredError struct{ want, got v1.Hash }

func (e alteredError) Error() string {
	return fmt.Sprintf("blob %s is altered: its content has the digest %s", e.want, e.got)
}

func (b *Bundle) corrupt(err error) error {
	return problem.New(problem.BundleCorrupt, err, "the bundle %s is damaged", b.path)
}

// Path is where the bundle lies.
func (b *Bundle) Path() string { return b.path }

// Close releases the bundle's files. Images taken from it cannot be read afterwards.
func (b *Bundle) Close() error { return b.store.close() }

// Images lists the images in the order of the index, which is that of their references.
func (b *Bundle) Images() []Entry {
	out := make([]Entry, 0, len(b.entries))
	for _, e := range b.entries {
		out = append(out, e.Entry)
	}
	return out
}

// Lookup finds an image by its reference in any of its spellings. A digest in ref
// must be that of the image, or the one under which the registry served it; where it
// is neither, or no such image is there, the error is the problem ImageMissing.
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

// matches tells whether an entry is what the reference names. A reference by digest
// alone is content with any tag of its repository.
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

// File reads a further file of the bundle, such as its bill of materials, and checks
// its digest.
func (b *Bundle) File(name string) ([]byte, error) {
	want, ok := b.files[name]
	if !ok {
		return nil, fmt.Errorf("the bundle %s: %s: %w", b.path, name, fs.ErrNotExist)
	}
	raw, err := readDocument(b.store, name)
	if err != nil {
		return nil, b.corrupt(err)
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, b.corrupt(err)
	}
	if got != want {
		return nil, b.corrupt(fmt.Errorf("file %s is altered: its content has the digest %s, not %s", name, got, want))
	}
	return raw, nil
}
