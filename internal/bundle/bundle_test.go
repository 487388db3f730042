package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"ambientlab/internal/problem"
)

// makeImage makes an image of random layers; substitute becomes its label.
func makeImage(t testing.TB, layers int, substitute string) v1.Image {
	t.Helper()
	return makeSized(t, 32<<10, layers, substitute)
}

func makeSized(t testing.TB, size int64, layers int, substitute string) v1.Image {
	t.Helper()
	return makeOf(t, types.OCIManifestSchema1, types.OCILayer, size, layers, substitute)
}

func makeOf(t testing.TB, kind, layerKind types.MediaType, size int64, layers int, substitute string) v1.Image {
	t.Helper()
	img := mutate.MediaType(empty.Image, kind)
	if kind == types.OCIManifestSchema1 {
		img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	}
	for range layers {
		layer, err := random.Layer(size, layerKind)
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	if substitute != "" {
		file.Config.Labels = map[string]string{AnnotationSubstitute: substitute}
	}
	if img, err = mutate.ConfigFile(img, file); err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOf(t testing.TB, img v1.Image) v1.Hash {
	t.Helper()
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// layersOf gives the digests of an image's layers.
func layersOf(t testing.TB, img v1.Image) []v1.Hash {
	t.Helper()
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var out []v1.Hash
	for _, l := range manifest.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// writeBundle writes a bundle of images by reference.
func writeBundle(t testing.TB, dir string, images map[string]v1.Image) {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	for ref, img := range images {
		file, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(context.Background(), ref, img, file.Config.Labels[AnnotationSubstitute]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func openBundle(t testing.TB, path string) *Bundle {
	t.Helper()
	b, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// pack writes a folder into a tar, each name with a prefix.
func pack(t testing.TB, dir, prefix string) string {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "bundle.tar")
	if prefix != "" {
		buffer = rename(t, &buffer, prefix)
	}
	if err := os.WriteFile(out, buffer.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return out
}

func rename(t testing.TB, archive io.Reader, prefix string) bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(archive)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		header.Name = prefix + header.Name
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(w, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBundleReturnsWhatWasAdded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	pilot, proxy := makeImage(t, 2, ""), makeImage(t, 1, "upstream Envoy")
	writeBundle(t, dir, map[string]v1.Image{
		"docker.io/istio/pilot:1.31.4-distroless": pilot,
		"istio/proxyv2:1.31.4-distroless":         proxy,
	})
	for name, path := range map[string]string{
		"folder": dir, "tar": pack(t, dir, ""),
		"tar with ./": pack(t, dir, "./"),
	} {
		t.Run(name, func(t *testing.T) {
			b := openBundle(t, path)
			if err := b.Verify(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries := b.Images()
			if len(entries) != 2 {
				t.Fatalf("%d images, want 2", len(entries))
			}
			if e := entries[1]; e.Ref != "docker.io/istio/proxyv2:1.31.4-distroless" ||
				e.Substitute != "upstream Envoy" ||
				e.Digest != digestOf(t, proxy) || e.Platform != "linux/amd64" || e.Size < 32<<10 {
				t.Errorf("entry %+v", e)
			}
			for _, ref := range []string{
				"istio/pilot:1.31.4-distroless",
				"docker.io/istio/pilot:1.31.4-distroless@" + digestOf(t, pilot).String(),
				"istio/pilot@" + digestOf(t, pilot).String(),
			} {
				img, err := b.Image(ref)
				if err != nil {
					t.Fatal(err)
				}
				if got := digestOf(t, img); got != digestOf(t, pilot) {
					t.Errorf("%s has digest %s", ref, got)
				}
				if err := validate.Image(img); err != nil {
					t.Errorf("%s: %v", ref, err)
				}
			}
		})
	}
}

// Other tools must be able to read a bundle: go-containerregistry's own layout reader is what crane uses.
func TestBundleIsAnOCILayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 2, "")
	writeBundle(t, dir, map[string]v1.Image{"quay.io/metallb/speaker:v0.16.1": img})
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if got := manifest.Manifests[0].Annotations[AnnotationRef]; got != "quay.io/metallb/speaker:v0.16.1" {
		t.Errorf("%s is %q", AnnotationRef, got)
	}
}

// skopeo reads only OCI manifests from a layout.
func TestDockerManifestsAreStoredAsOCIManifests(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	given := makeOf(t, types.DockerManifestSchema2, types.DockerLayer, 32<<10, 2, "")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1@" + digestOf(t, given).String(): given})
	b := openBundle(t, dir)
	img, err := b.Image("a.example/x:1@" + digestOf(t, given).String())
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []types.MediaType{
		manifest.MediaType, manifest.Config.MediaType, manifest.Layers[0].MediaType,
		b.entries[0].descriptor.MediaType,
	} {
		if !strings.HasPrefix(string(got), "application/vnd.oci.image.") {
			t.Errorf("a type is %s", got)
		}
	}
	was, wasErr := given.ConfigName()
	is, isErr := img.ConfigName()
	if err := errors.Join(wasErr, isErr); err != nil || was != is {
		t.Errorf("the image's ID became %s, was %s: %v", is, was, err)
	}
	if e := b.Images()[0]; e.Source != digestOf(t, given) || e.Digest == e.Source {
		t.Errorf("%+v", e)
	}
}

func TestSameImagesGiveTheSameBytes(t *testing.T) {
	images := map[string]v1.Image{"a.example/x:1": makeImage(t, 1, ""), "a.example/y:1": makeImage(t, 1, "")}
	var indexes []string
	for range 2 {
		dir := filepath.Join(t.TempDir(), "bundle")
		writeBundle(t, dir, images)
		raw, err := os.ReadFile(filepath.Join(dir, indexFile))
		if err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, string(raw))
	}
	if indexes[0] != indexes[1] {
		t.Errorf("first\n%s\nsecond\n%s", indexes[0], indexes[1])
	}
}

func TestLookupSaysWhatIsMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": makeImage(t, 1, "")})
	b := openBundle(t, dir)
	for _, ref := range []string{"a.example/x:2", "a.example/x:1@sha256:" + strings.Repeat("0", 64)} {
		_, err := b.Image(ref)
		if !problem.Is(err, problem.ImageMissing) || !strings.Contains(err.Error(), "a.example/x:") {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestFurtherFilesAreKeptAndChecked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Add(t.Context(), "a.example/x:1", makeImage(t, 1, ""), ""); err != nil {
		t.Fatal(err)
	}
	if err := w.AddFile("sbom.spdx.json", []byte(`{"spdxVersion":"SPDX-2.3"}`)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index.json", "../x", ".unfinished", "blobs", ""} {
		if err := w.AddFile(name, nil); err == nil {
			t.Errorf("%q was accepted", name)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	b := openBundle(t, dir)
	if raw, err := b.file("sbom.spdx.json"); err != nil || !strings.Contains(string(raw), "SPDX") {
		t.Errorf("%s, %v", raw, err)
	}
	if _, err := b.file("other"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sbom.spdx.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.Verify(t.Context()); !problem.Is(err, problem.BundleCorrupt) ||
		!strings.Contains(err.Error(), "sbom.spdx.json") {
		t.Errorf("an altered file gives %v", err)
	}
}

func TestWriteTable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 1, "substitute")
	writeBundle(t, dir, map[string]v1.Image{"istio/ztunnel:1.31.4-distroless": img})
	var out strings.Builder
	if err := openBundle(t, dir).WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"IMAGE", "docker.io/istio/ztunnel:1.31.4-distroless", digestOf(t, img).String(), "kB",
		"substitute",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "1kB", 999_999: "1MB", 81_340_000: "81.3MB",
		1_250_000_000: "1.25GB",
	} {
		if got := Size(bytes); got != want {
			t.Errorf("Size(%d) = %s, want %s", bytes, got, want)
		}
	}
}
