package bundle

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// damaged writes a bundle of one image, damages it, and returns its path.
func damaged(t *testing.T, img v1.Image, damage func(dir string)) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": img})
	damage(dir)
	return dir
}

func flip(t *testing.T, name string) {
	t.Helper()
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(name, raw, 0o644); err != nil {
		t.Fatal(err)
	}
}

func blobPath(dir string, h v1.Hash) string {
	return filepath.Join(dir, filepath.FromSlash(blobName(h)))
}

func TestOpenRefusesDamage(t *testing.T) {
	img := makeImage(t, 1, "")
	layer, manifest := layersOf(t, img)[0], digestOf(t, img)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		damage func(dir string)
		says   string
	}{
		"truncated layer": {func(dir string) {
			if err := os.Truncate(blobPath(dir, layer), 100); err != nil {
				t.Fatal(err)
			}
		}, "blob " + layer.String() + " is truncated: 100 of"},
		"missing layer": {func(dir string) {
			if err := os.Remove(blobPath(dir, layer)); err != nil {
				t.Fatal(err)
			}
		}, "blob " + layer.String() + " is missing"},
		"missing config": {func(dir string) {
			if err := os.Remove(blobPath(dir, config)); err != nil {
				t.Fatal(err)
			}
		}, "blob " + config.String() + " is missing"},
		"altered manifest": {
			func(dir string) { flip(t, blobPath(dir, manifest)) },
			"blob " + manifest.String() + " is altered",
		},
		"index without images": {func(dir string) { write(t, filepath.Join(dir, indexFile), `[]`) }, "index.json"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := damaged(t, img, test.damage)
			for _, path := range []string{dir, pack(t, dir, "")} {
				_, err := Open(path)
				if !problem.Is(err, problem.BundleCorrupt) || !strings.Contains(err.Error(), test.says) {
					t.Errorf("opening gives %v, want it to say %q", err, test.says)
				}
			}
		})
	}
}

func TestOneFlippedByteInALayerIsFound(t *testing.T) {
	img := makeImage(t, 3, "")
	layer := layersOf(t, img)[1]
	dir := damaged(t, img, func(dir string) { flip(t, blobPath(dir, layer)) })
	for _, path := range []string{dir, pack(t, dir, "")} {
		b := openBundle(t, path)
		err := b.Verify(t.Context())
		if !problem.Is(err, problem.BundleCorrupt) ||
			!strings.Contains(err.Error(), "a.example/x:1: blob "+layer.String()+" is altered") {
			t.Errorf("verify: %v", err)
		}
		read, err := b.Image("a.example/x:1")
		if err != nil {
			t.Fatal(err)
		}
		l, err := read.LayerByDigest(layer)
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		var sink bytes.Buffer
		if _, err := sink.ReadFrom(r); !problem.Is(err, problem.BundleCorrupt) ||
			!strings.Contains(err.Error(), layer.String()) {
			t.Errorf("reading the layer: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestVerifyFindsFilesThatAreNotBlobs(t *testing.T) {
	img := makeImage(t, 1, "")
	stray := strings.Repeat("ab", 32)
	dir := damaged(t, img, func(dir string) {
		write(t, filepath.Join(dir, "blobs", "sha256", "notes.txt"), "hello")
		write(t, filepath.Join(dir, "blobs", "sha256", stray), "hello")
	})
	err := openBundle(t, dir).Verify(t.Context())
	for _, want := range []string{"blobs/sha256/notes.txt is not a blob", "blob sha256:" + stray + " is altered"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("verify says %v, not %q", err, want)
		}
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestOpenSaysWhatABundleIs(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "notes.txt"), "hello")
	text := filepath.Join(dir, "notes.txt")

	whole := filepath.Join(t.TempDir(), "bundle")
	writeBundle(t, whole, map[string]v1.Image{"a.example/x:1": makeImage(t, 1, "")})
	packed := pack(t, whole, "")
	raw, err := os.ReadFile(packed)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "bundle.tgz"), zipped.String())
	write(t, filepath.Join(dir, "cut.tar"), string(raw[:len(raw)/2]))
	write(t, filepath.Join(dir, "other.tar"), string(raw[len(raw)-1024:]))

	tests := map[string]struct {
		kind problem.Kind
		says string
	}{
		dir:                                {problem.NotABundle, whatItIs},
		text:                               {problem.NotABundle, whatItIs},
		filepath.Join(dir, "absent"):       {problem.NotABundle, "there is no bundle"},
		filepath.Join(dir, "bundle.tgz"):   {problem.NotABundle, "decompress it first"},
		filepath.Join(dir, "cut.tar"):      {problem.BundleCorrupt, "truncated"},
		filepath.Join(dir, "other.tar"):    {problem.NotABundle, whatItIs},
		filepath.Join(whole, "index.json"): {problem.NotABundle, whatItIs},
	}
	for path, test := range tests {
		_, err := Open(path)
		if !problem.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s gives %v, want %s saying %q", path, err, test.kind.ID, test.says)
		}
	}
}
