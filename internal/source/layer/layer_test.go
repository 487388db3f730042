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
)

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

// The same content gives the same bytes, whatever order, time and mode its files had on disk.
func TestFromFilesIsDeterministic(t *testing.T) {
	one := files(t, strings.Repeat("x", 1000))
	first, err := FromFiles(one)
	if err != nil {
		t.Fatal(err)
	}
	two := files(t, strings.Repeat("x", 1000))
	two[0], two[3] = two[3], two[0]
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(two[3].Source, later, later); err != nil {
		t.Fatal(err)
	}
	second, err := FromFiles(two)
	if err != nil {
		t.Fatal(err)
	}
	a, errA := first.Digest()
	b, errB := second.Digest()
	if err := errors.Join(errA, errB); err != nil || a != b {
		t.Errorf("digests %s and %s: %v", a, b, err)
	}
	other, err := FromFiles(files(t, "something else"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := other.Digest(); err != nil || c == a {
		t.Errorf("other content has digest %s too: %v", c, err)
	}
}

func TestFromFilesIsATar(t *testing.T) {
	l, err := FromFiles(files(t, strings.Repeat("x", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := l.Uncompressed()
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

// What Size promises is what comes out: a registry and containerd both believe it.
func TestSize(t *testing.T) {
	for _, length := range []int{0, 1, 511, 512, 513} {
		l, err := FromFiles(files(t, strings.Repeat("x", length)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r)
		size, sizeErr := l.Size()
		if err := errors.Join(err, sizeErr, r.Close()); err != nil || n != size {
			t.Errorf("content of %d bytes: size %d, but %d bytes: %v", length, size, n, err)
		}
	}
}

func TestFileThatShrank(t *testing.T) {
	all := files(t, strings.Repeat("x", 1000))
	l, err := FromFiles(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(all[0].Source, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Digest(); err == nil || !strings.Contains(err.Error(), "990 bytes are missing") {
		t.Errorf("the error is %v", err)
	}
}

func TestFromFilesRefuses(t *testing.T) {
	for name, all := range map[string][]File{
		"no path":    {{Data: []byte("x")}},
		"twice":      {{Path: "/a", Data: []byte("x")}, {Path: "a", Data: []byte("y")}},
		"no source":  {{Path: "/a", Source: filepath.Join(t.TempDir(), "missing")}},
		"not a file": {{Path: "/a", Source: t.TempDir()}},
	} {
		if _, err := FromFiles(all); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestFromTar(t *testing.T) {
	path := program(t, strings.Repeat("x", 1024))
	l, err := FromTar(path)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := l.Digest()
	// What sha256sum says of 1024 times x.
	if err != nil || digest.Hex != "49abd65bbf7f7e40c7055093ed2e3fd75f2f602f2c5fcf955c213e3135eb03f7" {
		t.Errorf("digest %s: %v", digest, err)
	}
}
