package bundle

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

func TestWriteTar(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 2, "")
	w := create(t, dir)
	if err := w.Add(t.Context(), "a.example/x:1", img, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.AddFile("sbom.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "README"), "not part of the bundle")
	b := openBundle(t, dir)
	var one, two bytes.Buffer
	for _, out := range []*bytes.Buffer{&one, &two} {
		if err := b.WriteTar(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same bundle gave other bytes the second time")
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	write(t, path, one.String())
	packed := openBundle(t, path)
	if err := packed.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if raw, err := packed.File("sbom.json"); err != nil || string(raw) != "{}" {
		t.Errorf("sbom.json: %q, %v", raw, err)
	}
	if names, err := packed.store.list(); err != nil || strings.Contains(strings.Join(names, " "), "README") {
		t.Errorf("the archive holds %v, %v", names, err)
	}
	// The archive is a bundle like any other: its images can be added to another one.
	read, err := packed.Image("a.example/x:1")
	if err != nil {
		t.Fatal(err)
	}
	writeBundle(t, filepath.Join(t.TempDir(), "copy"), map[string]v1.Image{"a.example/y:1": read})
}

// An archive that was cut anywhere is refused, when it is opened or at the latest when
// it is verified.
func TestACutArchiveIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": makeSized(t, 1<<10, 1, "")})
	var whole bytes.Buffer
	if err := openBundle(t, dir).WriteTar(&whole); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	const trailer = 3 * 512 // the last file's padding and two blocks of zeros, which carry nothing
	for size := 0; size < whole.Len()-trailer; size += 200 {
		if err := os.WriteFile(path, whole.Bytes()[:size], 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := Open(path)
		if err == nil {
			err = b.Verify(t.Context())
			if closeErr := b.Close(); closeErr != nil {
				t.Fatal(closeErr)
			}
		}
		if !problem.Is(err, problem.BundleCorrupt) && !problem.Is(err, problem.NotABundle) {
			t.Errorf("cut at %d of %d bytes: %v", size, whole.Len(), err)
		}
	}
}
