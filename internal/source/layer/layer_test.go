package layer

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

var fast = Compression{types.OCILayer, gzip.BestSpeed}

func program(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func files(t *testing.T, content string) []File {
	t.Helper()
	return []File{
		{Path: "/usr/local/bin/program", Mode: 0o755, Source: program(t, content)},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0::/root:/sbin/nologin\n")},
		{Path: "/tmp", Dir: true, Mode: 0o1777},
		{Path: "/usr/local/bin/other", Link: "program"},
	}
}

func cached(t *testing.T, dir string, how Compression, files []File) *Layer {
	t.Helper()
	l, err := Cache{dir}.Files(how, files)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The same content gives the same bytes, whatever order, time and mode its files had on disk, and whatever cache they
// are in.
func TestFilesAreDeterministic(t *testing.T) {
	first := cached(t, t.TempDir(), fast, files(t, strings.Repeat("x", 1000)))
	two := files(t, strings.Repeat("x", 1000))
	two[0], two[3] = two[3], two[0]
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(two[3].Source, later, later); err != nil {
		t.Fatal(err)
	}
	if again := cached(t, t.TempDir(), fast, two); again.info != first.info {
		t.Errorf("%v became %v", first.info, again.info)
	}
	if other := cached(t, t.TempDir(), fast, files(t, "something else")); other.info.Digest == first.info.Digest {
		t.Error("other content has the same digest")
	}
}

func TestFilesAreATar(t *testing.T) {
	r, err := cached(t, t.TempDir(), fast, files(t, strings.Repeat("x", 1000))).Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(Epoch) {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		n, err := io.Copy(io.Discard, archive)
		if err != nil || n != h.Size {
			t.Errorf("%s: %d of %d bytes: %v", h.Name, n, h.Size, err)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name)
	}
	want := []string{
		"drwxr-xr-x etc/", "-rw-r--r-- etc/passwd", "dtrwxrwxrwx tmp/", "drwxr-xr-x usr/", "drwxr-xr-x usr/local/",
		"drwxr-xr-x usr/local/bin/", "Lrwxrwxrwx usr/local/bin/other", "-rwxr-xr-x usr/local/bin/program",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFilesRefuses(t *testing.T) {
	for name, all := range map[string][]File{
		"no path":    {{Data: []byte("x")}},
		"twice":      {{Path: "/a", Data: []byte("x")}, {Path: "a", Data: []byte("y")}},
		"no source":  {{Path: "/a", Source: filepath.Join(t.TempDir(), "missing")}},
		"not a file": {{Path: "/a", Source: t.TempDir()}},
	} {
		if _, err := (Cache{t.TempDir()}).Files(fast, all); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What a layer says of itself is true of its bytes, and it is written once.
func TestLayerIsWrittenOnce(t *testing.T) {
	cache := Cache{t.TempDir()}
	for _, how := range []Compression{
		fast,
		{types.DockerLayer, gzip.NoCompression},
		{types.OCILayerZStd, int(zstd.SpeedDefault)},
	} {
		first, err := cache.Layer("k", how, func(w *tar.Writer) error {
			return writeFiles(w, []File{{Path: "hello", Mode: 0o644, Data: []byte(strings.Repeat("hello ", 10_000))}})
		})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := first.MediaType(); err != nil || m != how.MediaType {
			t.Errorf("media type %s, %v", m, err)
		}
		if how.MediaType != types.OCILayerZStd { // validate reads gzip only
			if err := validate.Layer(first); err != nil {
				t.Errorf("%v: %v", how, err)
			}
		}
		if how.Level != gzip.NoCompression && first.info.Size > 20_000 {
			t.Errorf("%v: %d of 60000 bytes", how, first.info.Size)
		}
		again, err := cache.Layer("k", how, func(*tar.Writer) error { return errors.New("written twice") })
		if err != nil {
			t.Fatal(err)
		}
		if again.info != first.info {
			t.Errorf("the cached layer is %v, want %v", again.info, first.info)
		}
		r, err := again.Uncompressed()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !strings.Contains(string(got), "hello hello") {
			t.Errorf("%v: %d bytes, %v", how, len(got), err)
		}
	}
}

func TestLayerThatFailsIsNotKept(t *testing.T) {
	cache := Cache{t.TempDir()}
	broken := errors.New("broken")
	if _, err := cache.Layer("k", fast, func(*tar.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("error is %v, want the writer's", err)
	}
	if left, err := os.ReadDir(cache.Dir); err != nil || len(left) > 0 {
		t.Errorf("the cache holds %v after a failure, %v", left, err)
	}
}

func TestTruncatedLayerIsMadeAgain(t *testing.T) {
	cache := t.TempDir()
	l := cached(t, cache, fast, files(t, "text"))
	names, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("the cache holds %v, %v", names, err)
	}
	for _, name := range names {
		if err := os.Truncate(name, 1); err != nil {
			t.Fatal(err)
		}
		again := cached(t, cache, fast, files(t, "text"))
		if err := validate.Layer(again); err != nil || again.info != l.info {
			t.Errorf("after %s was truncated: %v, %v", filepath.Base(name), again.info, err)
		}
	}
}

func TestUnusedLayersAreRemoved(t *testing.T) {
	cache := t.TempDir()
	cached(t, cache, fast, files(t, "old"))
	names, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * unused)
	for _, name := range names {
		if err := os.Chtimes(name, long, long); err != nil {
			t.Fatal(err)
		}
	}
	l := cached(t, cache, fast, files(t, "new"))
	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 2 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
	if err := validate.Layer(l); err != nil {
		t.Error(err)
	}
}

func TestFingerprintSeesEverything(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	add := func(files ...File) {
		t.Helper()
		print, err := Fingerprint(files)
		if err != nil {
			t.Fatal(err)
		}
		if seen[print] {
			t.Errorf("%+v has the fingerprint of something else", files)
		}
		seen[print] = true
	}
	add(File{Path: "a", Data: []byte("one")})
	add(File{Path: "a", Data: []byte("one"), Mode: 0o755})
	add(File{Path: "a", Data: []byte("one"), UID: 1})
	add(File{Path: "a", Data: []byte("one"), GID: 1})
	add(File{Path: "b", Data: []byte("one")})
	add(File{Path: "a", Link: "one"})
	add(File{Path: "a", Dir: true})
	add(File{Path: "a", Source: file})
	if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	add(File{Path: "a", Source: file})
}
