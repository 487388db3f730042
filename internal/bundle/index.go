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
	// AnnotationContainerd is what containerd names an imported image by (containerd, core/images/annotations.go).
	AnnotationContainerd = "io.containerd.image.name"
	// AnnotationSubstitute says what an image is if it is not what its reference says. The image's config has a label
	// of the same name.
	AnnotationSubstitute = "lab.substitute"
	// AnnotationSource is the digest under which a registry served the image, or the digest of a built image if it
	// differs from that in the bundle. It differs if it is the digest of an index of several platforms, or of a Docker
	// manifest, which the bundle stores as an OCI manifest.
	AnnotationSource = "lab.source-digest"
	// annotationFile, followed by the name of a further file, is an annotation of the index. It holds the file's
	// digest.
	annotationFile = "lab.file."
)

// Entry is one image of a bundle.
type Entry struct {
	// Ref is the full reference, such as docker.io/istio/pilot:1.31.4-distroless.
	Ref string
	// Digest is the digest of the image's manifest.
	Digest v1.Hash
	// Size is the bytes of manifest, config and layers as they are stored. A layer that images share counts for each
	// image.
	Size int64
	// Substitute says what the image is if it is not what Ref says.
	Substitute string
	// Source is the digest under which the image came; see AnnotationSource.
	Source v1.Hash
	// Platform is the operating system and architecture, such as linux/amd64.
	Platform string
}

// contents is what an index.json holds.
type contents struct {
	entries []entry
	files   map[string]v1.Hash
}

// entry is an Entry with the descriptors of its image.
type entry struct {
	Entry
	descriptor v1.Descriptor
	// blobs are the manifest, the config and the layers, once the manifest was read.
	blobs []v1.Descriptor
}

func (e entry) config() v1.Descriptor   { return e.blobs[1] }
func (e entry) layers() []v1.Descriptor { return e.blobs[2:] }

// describe makes the entry of an image. It also returns the manifest as it is stored, which is an OCI manifest.
func describe(ref Reference, raw, rawConfig []byte) (entry, []byte, error) {
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return entry{}, nil, fmt.Errorf("reading its manifest: %w", err)
	}
	if raw, manifest, err = toOCI(raw, manifest); err != nil {
		return entry{}, nil, err
	}
	digest, size, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return entry{}, nil, err
	}
	config, err := v1.ParseConfigFile(bytes.NewReader(rawConfig))
	if err != nil {
		return entry{}, nil, fmt.Errorf("reading its config: %w", err)
	}
	substitute := config.Config.Labels[AnnotationSubstitute]
	annotations := map[string]string{AnnotationRef: ref.Name, AnnotationContainerd: ref.Name}
	if substitute != "" {
		annotations[AnnotationSubstitute] = substitute
	}
	e := entry{
		Entry: Entry{Ref: ref.Name, Digest: digest, Substitute: substitute},
		descriptor: v1.Descriptor{
			// The media type is optional in OCI manifests (image-spec, manifest.md).
			MediaType: cmp.Or(manifest.MediaType, types.OCIManifestSchema1),
			Digest:    digest, Size: size, Annotations: annotations, Platform: config.Platform(),
		},
	}
	e.blobs = append([]v1.Descriptor{e.descriptor, manifest.Config}, manifest.Layers...)
	for _, d := range e.blobs {
		e.Size += d.Size
	}
	if p := config.Platform(); p != nil {
		e.Platform = p.String()
	}
	return e, raw, nil
}

// withSource records the digest under which the image came.
func (e entry) withSource(source v1.Hash) entry {
	e.Source = source
	e.descriptor = *e.descriptor.DeepCopy()
	e.descriptor.Annotations[AnnotationSource] = source.String()
	return e
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

// parseIndex reads an index.json. Each entry that it returns has a valid reference, which no other entry has, and a
// sha256 digest.
func parseIndex(raw []byte) (contents, error) {
	var index v1.IndexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
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
			return contents{}, fmt.Errorf("entry %d of %s: %s occurs twice", i, indexFile, e.Ref)
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

// parseHash accepts sha256 only, the one algorithm that registries and containerd's content store use.
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

// checkFileName accepts the plain name of a file that does not belong to the layout.
func checkFileName(name string) error {
	switch {
	case name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, `/\`):
		return fmt.Errorf("%q is no plain file name", name)
	case name == layoutFile || name == indexFile || name == "blobs":
		return fmt.Errorf("%q belongs to the layout", name)
	}
	return nil
}

// encode returns the index.json with its entries ordered by reference, so that the same images give the same bytes.
func (c contents) encode() ([]byte, error) {
	if len(c.entries) == 0 {
		return nil, errors.New("there are no images")
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

// blobName is the path of a blob in the layout.
func blobName(h v1.Hash) string { return blobDir + "/" + h.Hex }
