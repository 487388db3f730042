package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"one", "two"} {
		if err := Write(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		want(t, path, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A failure leaves the earlier content and no temporary file.
func TestWriteFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("the input ended early")
	err := WriteFunc(path, 0o600, func(f *os.File) error {
		_, err := f.WriteString("part")
		return errors.Join(failure, err)
	})
	if !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	want(t, path, "earlier")
	if err := Write(filepath.Dir(path), []byte("a folder has this name"), 0o600); err == nil {
		t.Error("a folder was replaced")
	}
	for _, dir := range []string{filepath.Dir(path), filepath.Dir(filepath.Dir(path))} {
		if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

func want(t *testing.T, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("%s has %q, %v; want %q", path, got, err, content)
	}
}
