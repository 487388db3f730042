package nodeimage

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func hello(t *tar.Writer) error {
	return writeEntries(t, []entry{
		{Path: "opt", Mode: 0o755, Dir: true},
		{Path: "opt/hello", Mode: 0o755, Data: []byte("hello")},
		{Path: "opt/link", Link: "hello"},
	})
}

func TestLayerIsWrittenOnce(t *testing.T) {
	cache := layerCache{t.TempDir()}
	for _, how := range []compression{gzipFast, gzipStore, zstdDefault} {
		key := "k-" + string(how.mediaType[len(how.mediaType)-4:]) + string(rune('a'+how.level))
		first, err := cache.layer(key, how, hello)
		if err != nil {
			t.Fatal(err)
		}
		again, err := cache.layer(key, how, func(*tar.Writer) error { return errors.New("written twice") })
		if err != nil {
			t.Fatal(err)
		}
		if again.info != first.info {
			t.Errorf("the cached layer is %v, want %v", again.info, first.info)
		}
		// What is said of the layer must be true of its bytes.
		for _, half := range []struct {
			open func() (io.ReadCloser, error)
			want v1.Hash
		}{{first.Compressed, first.info.Digest}, {first.Uncompressed, first.info.DiffID}} {
			r, err := half.open()
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := v1.SHA256(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			if got != half.want {
				t.Errorf("%s: the content is %s, the layer says %s", how.mediaType, got, half.want)
			}
		}
	}
}

func TestLayerThatFailsIsNotKept(t *testing.T) {
	cache := layerCache{t.TempDir()}
	broken := errors.New("broken")
	if _, err := cache.layer("k", gzipFast, func(*tar.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("error is %v, want the writer's", err)
	}
	left, err := os.ReadDir(cache.dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("the cache holds %v after a failure", left)
	}
	l, err := cache.layer("k", gzipFast, hello)
	if err != nil {
		t.Fatal(err)
	}
	// Cut short behind the cache's back: made again, not used.
	if err := os.Truncate(l.path, 10); err != nil {
		t.Fatal(err)
	}
	if l, err = cache.layer("k", gzipFast, hello); err != nil {
		t.Fatal(err)
	}
	if stat, err := os.Stat(l.path); err != nil || stat.Size() != l.info.Size {
		t.Errorf("a truncated layer was not made again: %v, %v", stat, err)
	}
}

func TestTree(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755),
		os.WriteFile(filepath.Join(root, "usr/bin/perl"), []byte("perl"), 0o755),
		os.Link(filepath.Join(root, "usr/bin/perl"), filepath.Join(root, "usr/bin/perl5")),
		os.Symlink("usr/bin", filepath.Join(root, "bin")),
		os.Chmod(filepath.Join(root, "usr"), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r, w := io.Pipe()
	go func() {
		to := tar.NewWriter(w)
		w.CloseWithError(errors.Join(writeTree(to, root, "rootfs"), to.Close()))
	}()
	var got []string
	for from := tar.NewReader(r); ; {
		h, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(buildTime) {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		got = append(got, string(h.Typeflag)+" "+h.Name+" "+h.Linkname)
	}
	want := []string{
		"5 rootfs/ ", "2 rootfs/bin usr/bin", "5 rootfs/usr/ ", "5 rootfs/usr/bin/ ",
		"0 rootfs/usr/bin/perl ", "1 rootfs/usr/bin/perl5 rootfs/usr/bin/perl",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the tree is\n%q\nwant\n%q", got, want)
	}
}

func TestFingerprintSeesEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	add := func(entries ...entry) {
		t.Helper()
		print, err := fingerprint(entries)
		if err != nil {
			t.Fatal(err)
		}
		if seen[print] {
			t.Errorf("%+v has the fingerprint of something else", entries)
		}
		seen[print] = true
	}
	add(entry{Path: "a", Data: []byte("one")})
	add(entry{Path: "a", Data: []byte("one"), Mode: 0o755})
	add(entry{Path: "b", Data: []byte("one")})
	add(entry{Path: "a", Link: "one"})
	add(entry{Path: "a", Dir: true})
	add(entry{Path: "a", Source: file})
	if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	add(entry{Path: "a", Source: file})
}
