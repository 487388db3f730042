package layer

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func compress(t *testing.T, content, cache string) v1.Layer {
	t.Helper()
	plain, err := FromFiles(files(t, content))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Gzip(plain, cache)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func digest(t *testing.T, l v1.Layer) string {
	t.Helper()
	h, err := l.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func TestGzip(t *testing.T) {
	content := strings.Repeat("a program's text ", 10_000)
	cache := t.TempDir()
	l := compress(t, content, cache)
	if err := validate.Layer(l); err != nil {
		t.Error(err)
	}
	if m, err := l.MediaType(); err != nil || m != types.OCILayer {
		t.Errorf("media type %s, %v", m, err)
	}
	if size, err := l.Size(); err != nil || size > int64(len(content)/4) {
		t.Errorf("%d bytes of %d: %v", size, len(content), err)
	}
	// Neither another folder nor the cache changes the digest.
	for name, again := range map[string]v1.Layer{"elsewhere": compress(t, content, t.TempDir()), "cached": compress(t, content, cache)} {
		if digest(t, again) != digest(t, l) {
			t.Errorf("%s: digest %s, not %s", name, digest(t, again), digest(t, l))
		}
	}
}

func TestGzipMendsItsCache(t *testing.T) {
	cache := t.TempDir()
	l := compress(t, "text", cache)
	names, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(names) != 2 {
		t.Fatalf("the cache holds %v, %v", names, err)
	}
	for _, name := range names {
		if err := os.Truncate(name, 1); err != nil {
			t.Fatal(err)
		}
		again := compress(t, "text", cache)
		if err := validate.Layer(again); err != nil || digest(t, again) != digest(t, l) {
			t.Errorf("after %s was cut: %s, %v", filepath.Base(name), digest(t, again), err)
		}
	}
}

func TestGzipForgetsWhatNobodyUses(t *testing.T) {
	cache := t.TempDir()
	compress(t, "old", cache)
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
	l := compress(t, "new", cache)
	left, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("the cache holds %v, %v", left, err)
	}
	r, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
