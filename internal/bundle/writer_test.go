package bundle

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"ambientlab/internal/problem"
)

func create(t *testing.T, dir string) *Writer {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestUnfinishedWriteIsNoBundle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	w := create(t, dir)
	img := makeImage(t, 2, "")
	if err := w.Add(t.Context(), "a.example/x:1", img, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !problem.Is(err, problem.BundleUnfinished) {
		t.Errorf("while it is written: %v", err)
	}
	if _, err := Create(dir); !problem.Is(err, problem.BundleUnfinished) ||
		!strings.Contains(err.Error(), "another run") {
		t.Errorf("a second writer: %v", err)
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !problem.Is(err, problem.BundleUnfinished) {
		t.Errorf("after the writer gave up: %v", err)
	}
	// The next writer finds the layers whole and does not ask for their content.
	w = create(t, dir)
	if err := w.Add(t.Context(), "a.example/x:1", contentless{img}, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := openBundle(t, dir).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// contentless is an image whose layers cannot be read.
type contentless struct{ v1.Image }

type contentlessLayer struct{ v1.Layer }

var errNoContent = errors.New("the content was asked for")

func (contentlessLayer) Compressed() (io.ReadCloser, error) { return nil, errNoContent }

func (c contentless) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	for i := range layers {
		layers[i] = contentlessLayer{layers[i]}
	}
	return layers, err
}

func TestWriterReplacesAnAlteredBlob(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 2, "")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": img})
	flip(t, blobPath(dir, layersOf(t, img)[0]))
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": img})
	if err := openBundle(t, dir).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEarlierBundleStaysUntilCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	old, young := makeImage(t, 1, ""), makeImage(t, 1, "")
	writeBundle(t, dir, map[string]v1.Image{"a.example/old:1": old})
	w := create(t, dir)
	if err := w.Add(t.Context(), "a.example/young:1", young, ""); err != nil {
		t.Fatal(err)
	}
	before, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := before.Images(); len(got) != 1 || got[0].Ref != "a.example/old:1" {
		t.Errorf("before the commit: %v", got)
	}
	reader, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	// A reader that had the earlier bundle open can still read it.
	if img, err := reader.Image("a.example/old:1"); err != nil || validate.Image(img) != nil {
		t.Errorf("the earlier bundle, held open: %v", err)
	}
	for _, r := range []*Bundle{before, reader} {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	writeBundle(t, dir, map[string]v1.Image{"a.example/young:1": young})
	b := openBundle(t, dir)
	if got := b.Images(); len(got) != 1 || got[0].Ref != "a.example/young:1" {
		t.Errorf("after the commit: %v", got)
	}
	if _, err := os.Stat(blobPath(dir, layersOf(t, old)[0])); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old layer: %v", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range names {
		got = append(got, n.Name())
	}
	if want := []string{"blobs", "index.json", "oci-layout"}; !slices.Equal(got, want) {
		t.Errorf("the folder holds %v, want %v", got, want)
	}
}

func TestCreateLeavesOtherLayoutsAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(makeImage(t, 1, "")); err != nil { // without a reference
		t.Fatal(err)
	}
	if _, err := Create(dir); !problem.Is(err, problem.NotABundle) {
		t.Errorf("Create: %v", err)
	}
	if _, err := Open(dir); !problem.Is(err, problem.BundleCorrupt) || !strings.Contains(err.Error(), AnnotationRef) {
		t.Errorf("Open: %v", err)
	}
}

func TestCommitKeepsWhatOthersPutThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	w := create(t, dir)
	img := makeImage(t, 1, "")
	if err := errors.Join(w.Add(t.Context(), "a.example/x:1", img, ""), w.AddFile("sbom.json", []byte("{}")),
		w.Commit()); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "README"), "bought in Berlin")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": img})
	if _, err := os.Stat(filepath.Join(dir, "README")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "sbom.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the earlier bundle's file: %v", err)
	}
}

func TestCreateLeavesOtherFoldersAlone(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "thesis.txt"), "years of work")
	_, err := Create(dir)
	if !problem.Is(err, problem.NotABundle) || !strings.Contains(err.Error(), "it is not changed") {
		t.Fatalf("Create: %v", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("the folder now holds %v, %v", names, err)
	}
}

func TestAddRefuses(t *testing.T) {
	w := create(t, filepath.Join(t.TempDir(), "bundle"))
	img := makeImage(t, 1, "substitute")
	cancelled, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	tests := map[string]struct {
		ctx             context.Context
		ref, substitute string
		img             v1.Image
		says            string
	}{
		"unlabelled": {t.Context(), "a.example/x:1", "", img, `lab.substitute is "substitute"`},
		"wrong digest": {
			t.Context(), "a.example/x:1@sha256:" + strings.Repeat("1", 64), "substitute", img,
			"has the digest",
		},
		"no reference": {t.Context(), "Not A Reference", "substitute", img, "image reference"},
		"cancelled":    {cancelled, "a.example/x:1", "substitute", img, "interrupted"},
		"wrong layer":  {t.Context(), "a.example/x:1", "substitute", wrongImage{img}, "not what was announced"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := w.Add(test.ctx, test.ref, test.img, test.substitute); err == nil ||
				!strings.Contains(err.Error(), test.says) {
				t.Errorf("Add gives %v, want it to say %q", err, test.says)
			}
		})
	}
	if err := w.Commit(); err == nil {
		t.Error("a bundle without images was made")
	}
	left, err := filepath.Glob(filepath.Join(w.dir, partialDir, "put-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// wrongImage is an image whose layers hold other content than they announce.
type wrongImage struct{ v1.Image }

type wrongLayer struct{ v1.Layer }

func (wrongLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("something else")), nil
}

func (l wrongImage) Layers() ([]v1.Layer, error) {
	layers, err := l.Image.Layers()
	for i := range layers {
		layers[i] = wrongLayer{layers[i]}
	}
	return layers, err
}

func TestOneBlobAddedFromManySidesIsWrittenOnce(t *testing.T) {
	w := create(t, filepath.Join(t.TempDir(), "bundle"))
	img := &counting{Image: makeImage(t, 3, "")}
	var wg sync.WaitGroup
	for _, ref := range []string{"a.example/x:1", "a.example/x:2", "a.example/x:3", "a.example/x:4"} {
		wg.Go(func() {
			if err := w.Add(t.Context(), ref, img, ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if img.opened != 3 {
		t.Errorf("layers were read %d times, want 3", img.opened)
	}
}

// counting counts how often layers are read.
type counting struct {
	v1.Image
	mu     sync.Mutex
	opened int
}

type countingLayer struct {
	v1.Layer
	of *counting
}

func (l countingLayer) Compressed() (io.ReadCloser, error) {
	l.of.mu.Lock()
	l.of.opened++
	l.of.mu.Unlock()
	return l.Layer.Compressed()
}

func (c *counting) Layers() ([]v1.Layer, error) {
	layers, err := c.Image.Layers()
	for i := range layers {
		layers[i] = countingLayer{layers[i], c}
	}
	return layers, err
}
