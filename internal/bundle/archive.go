package bundle

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// shipment is what one import into containerd brings: some of a bundle's images.
type shipment struct {
	index []byte
	// blobs are the manifests, configs and layers, each once.
	blobs []v1.Descriptor
}

// named is an image with the names it is to have in containerd.
type named struct {
	entry
	names []string
}

// packShipment makes the shipment of some images, its blobs in the given order: all
// shipments of a run must have it in common for one reading to serve them all.
func packShipment(images []named, order map[v1.Hash]int) (shipment, error) {
	var s shipment
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	seen := map[v1.Hash]bool{}
	for _, image := range images {
		for _, name := range image.names {
			d := image.descriptor.DeepCopy()
			d.Annotations = map[string]string{AnnotationContainerd: name, AnnotationRef: name}
			index.Manifests = append(index.Manifests, *d)
		}
		for _, blob := range image.blobs {
			if !seen[blob.Digest] {
				seen[blob.Digest] = true
				s.blobs = append(s.blobs, blob)
			}
		}
	}
	slices.SortFunc(s.blobs, func(a, b v1.Descriptor) int { return cmp.Compare(order[a.Digest], order[b.Digest]) })
	var err error
	s.index, err = json.Marshal(index)
	return s, err
}

// leaveOut leaves out the blobs that images have which are there already, complete:
// containerd finds them in its content store, where those images keep them alive.
func (s *shipment) leaveOut(held []named) {
	there := orderOf(held)
	s.blobs = slices.DeleteFunc(s.blobs, func(d v1.Descriptor) bool {
		_, ok := there[d.Digest]
		return ok
	})
}

// write writes the shipment as the tar of an OCI layout, as `ctr images import` takes
// it. content writes one blob. The index comes last: containerd takes an archive that
// ends early for a whole one (archive/tar reads a missing trailer as the end), but not
// one without an index.
func (s shipment) write(w io.Writer, content func(io.Writer, v1.Descriptor) error) error {
	archive := tar.NewWriter(w)
	layout := []byte(`{"imageLayoutVersion":"` + layoutVersion + `"}`)
	if err := writeMember(archive, layoutFile, int64(len(layout)), bytes.NewReader(layout)); err != nil {
		return err
	}
	for _, d := range s.blobs {
		if err := archive.WriteHeader(memberHeader(blobName(d.Digest), d.Size)); err != nil {
			return err
		}
		if err := content(archive, d); err != nil {
			return err
		}
	}
	if err := writeMember(archive, indexFile, int64(len(s.index)), bytes.NewReader(s.index)); err != nil {
		return err
	}
	return archive.Close()
}

func memberHeader(name string, size int64) *tar.Header {
	return &tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
}

func writeMember(archive *tar.Writer, name string, size int64, content io.Reader) error {
	if err := archive.WriteHeader(memberHeader(name, size)); err != nil {
		return err
	}
	_, err := io.Copy(archive, content)
	return err
}

// WriteTar writes the bundle as one .tar, which Open, `ctr images import` and `kind
// load image-archive` accept. The same bundle gives the same bytes.
func (b *Bundle) WriteTar(w io.Writer) error {
	archive := tar.NewWriter(w)
	names := []string{layoutFile, indexFile}
	for name := range b.files {
		names = append(names, name)
	}
	seen := map[string]bool{}
	for _, e := range b.entries {
		for _, d := range e.blobs {
			if name := blobName(d.Digest); !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if err := b.writeFile(archive, name); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (b *Bundle) writeFile(archive *tar.Writer, name string) (err error) {
	size, err := b.store.size(name)
	if err != nil {
		return b.corrupt(err)
	}
	f, err := b.store.open(name)
	if err != nil {
		return b.corrupt(err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return writeMember(archive, name, size, f)
}
