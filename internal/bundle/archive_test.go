package bundle

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// An archive that was cut anywhere is refused, when it is opened or at the latest when it is verified.
func TestACutArchiveIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": makeSized(t, 1<<10, 1, "")})
	whole, err := os.ReadFile(pack(t, dir, ""))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "bundle.tar")
	const trailer = 3 * 512 // the padding of the last file and two blocks of zeros, which hold nothing
	for size := 0; size < len(whole)-trailer; size += 200 {
		if err := os.WriteFile(path, whole[:size], 0o644); err != nil {
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
			t.Errorf("cut at %d of %d bytes: %v", size, len(whole), err)
		}
	}
}
