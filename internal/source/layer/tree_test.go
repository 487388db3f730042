package layer

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

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
		w.CloseWithError(errors.Join(WriteTree(to, root, "rootfs"), to.Close()))
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
		if !h.ModTime.Equal(Epoch) {
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
