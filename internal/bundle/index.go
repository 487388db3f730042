package bundle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// The files of an OCI image layout (image-spec v1.1, image-layout.md).
const (
	layoutFile    = "oci-layout"
	layoutVersion = "1.0.0"
	indexFile     = "index.json"
	blobDir       = "blobs/sha256"
)

// Annotations of an entry in index.json.
const (
	// AnnotationRef holds the reference of an image (image-spec, annotations.md).
	AnnotationRef = "org.opencontainers.image.ref.name"
	// AnnotationContainerd is what containerd names an imported image by
	// (containerd, core/images/annotations.go).
	AnnotationContainerd = "io.containerd.image.name"
	// AnnotationSubstitute says what an image really is, where that is not what its
	// reference says. The image's config has a label of the same name.
	AnnotationSubstitute = "lab.substitute"
	// AnnotationSource is the digest under which the image came, from a registry always,
	// from a builder where it differs. It differs from the digest of the image in the bundle where it is that of an index of
	// several platforms, or of a manifest in Docker's terms, which is kept in OCI's.
	AnnotationSource = "lab.source-digest"
	// annotationFile and a file's name hold, on the index itself, the digest of a
	// further file of the bundle.
	annotationFile = "lab.file."
)

// maxDocument bounds what is read whole into memory: index, manifests, configs.
const maxDocument = 8 << 20

// Entry is one image of a bundle.
type Entry struct {
	// Ref is the reference in full, such as docker.io/istio/pilot:1.31.1-distroless.
	Ref string `json:"ref"`
	// Digest is the digest of the image's manifest.
	Digest v1.Hash `json:"digest"`
	// Size is the bytes of manifest, config and layers as they are stored. A layer
	// that images share counts for each of them.
	Size int64 `json:"size"`
	// Substitute says what the image really is; empty if it is what Ref says.
	Substitute string `json:"substitute,omitempty"`
	// Source is the digest under which the image came; see AnnotationSource.
	Source v1.Hash `json:"source,omitzero"`
	// Platform is the operating system and architecture, such as linux/amd64.
	Platform string `json:"platform,omitempty"`
}

// contents is what an index.json says.
type contents struct {
	entries []entry
	files   map[string]v1.Hash
}

// entry is an Entry with what is needed to read its image.
type entry struct {
	Entry
	descriptor v1.Descriptor
	// blobs are the manifest, the config and the layers; filled by Open.
	blobs []v1.Descriptor
}

// parseLayout checks an oci-layout file.
func parseLayout(raw []byte) error {
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(raw, &layout); err != nil {
		return fmt.Errorf("%s is not JSON: %w", layoutFile, err)
	}
	if layout.Version != layoutVersion {
		return fmt.Errorf("%s has version %q, not %s", layoutFile, layout.Version, layoutVersion)
	}
	return nil
}

// parseIndex reads an index.json. Whatever it accepts has entries with a well-formed
// reference and a sha256 digest, and no reference twice.
func parseIndex(raw []byte) (contents, error) {
	var index v1.IndexManifest
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&index); err != nil {
		return contents{}, fmt.Errorf("%s is not an image index: %w", indexFile, err)
	}
	if index.SchemaVersion != 2 {
		return contents{}, fmt.Errorf("%s has schema version %d, not 2", indexFile, index.SchemaVersion)
	}
	out := contents{files: map[string]v1.Hash{}}
	seen := map[string]bool{}
	for i, descriptor := range index.Manifests {
		e, err := parseEntry(descriptor)
		if err != nil {
			return contents{}, fmt.Errorf("entry %d of %s: %w", i, indexFile, err)
		}
		if seen[e.Ref] {
			return contents{}, fmt.Errorf("entry %d of %s: %s is there twice", i, indexFile, e.Ref)
		}
		seen[e.Ref] = true
		out.entries = append(out.entries, e)
	}
	for key, value := range index.Annotations {
		name, ok := strings.CutPrefix(key, annotationFile)
		if !ok {
			continue
		}
		hash, err := parseHash(value)
		if err == nil {
			err = checkFileName(name)
		}
		if err != nil {
			return contents{}, fmt.Errorf("annotation %s of %s: %w", key, indexFile, err)
		}
		out.files[name] = hash
	}
	return out, nil
}

func parseEntry(d v1.Descriptor) (entry, error) {
	ref := d.Annotations[AnnotationRef]
	if ref == "" {
		return entry{}, fmt.Errorf("%s has no annotation %s", d.Digest, AnnotationRef)
	}
	parsed, err := ParseReference(ref)
	if err != nil {
		return entry{}, err
	}
	if _, err := parseHash(d.Digest.String()); err != nil {
		return entry{}, fmt.Errorf("%s: %w", ref, err)
	}
	if !d.MediaType.IsImage() {
		return entry{}, fmt.Errorf("%s is of type %s; a bundle holds images of one platform", ref, d.MediaType)
	}
	if d.Size <= 0 || d.Size > maxDocument {
		return entry{}, fmt.Errorf("%s has a manifest of %d bytes", ref, d.Size)
	}
	e := entry{descriptor: d, Entry: Entry{
		Ref: parsed.Name, Digest: d.Digest, Substitute: d.Annotations[AnnotationSubstitute],
	}}
	if source := d.Annotations[AnnotationSource]; source != "" {
		if e.Source, err = parseHash(source); err != nil {
			return entry{}, fmt.Errorf("%s: annotation %s: %w", ref, AnnotationSource, err)
		}
	}
	if d.Platform != nil {
		e.Platform = d.Platform.String()
	}
	return e, nil
}

// parseHash accepts sha256 only: the one algorithm that registries serve and
// containerd's content store keeps.
func parseHash(s string) (v1.Hash, error) {
	h, err := v1.NewHash(s)
	if err != nil {
		return v1.Hash{}, err
	}
	if h.Algorithm != "sha256" || len(h.Hex) != 64 {
		return v1.Hash{}, fmt.Errorf("%q is not a sha256 digest", s)
	}
	return h, nil
}

// checkFileName accepts a plain name that no file of the layout has.
func checkFileName(name string) error {
	switch {
	case name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, `/\`):
		return fmt.Errorf("%q is no plain file name", name)
	case name == layoutFile || name == indexFile || name == "blobs":
		return fmt.Errorf("%q belongs to the layout", name)
	}
	return nil
}

// encode writes the index with its entries in the order of their references, so that
// the same images give the same bytes.
func (c contents) encode() ([]byte, error) {
	if len(c.entries) == 0 {
		return nil, errors.New("a bundle without images is of no use")
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	entries := slices.SortedFunc(slices.Values(c.entries), func(a, b entry) int { return cmp.Compare(a.Ref, b.Ref) })
	for _, e := range entries {
		index.Manifests = append(index.Manifests, e.descriptor)
	}
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		if index.Annotations == nil {
			index.Annotations = map[string]string{}
		}
		index.Annotations[annotationFile+name] = c.files[name].String()
	}
	raw, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", indexFile, err)
	}
	return append(raw, '\n'), nil
}

// blobName is where a blob lies in the layout.
func blobName(h v1.Hash) string { return blobDir + "/" + h.Hex }
