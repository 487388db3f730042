//go:build e2e

package debian

import (
	"slices"
	"testing"
)

// TestExtract takes packages from Debian's mirror twice, into caches with nothing in common.
func TestExtract(t *testing.T) {
	digests := map[string]bool{}
	for range 2 {
		opts := Options{CacheDir: t.TempDir(), Progress: func(message string) { t.Log(message) }}
		l, installed, err := Extract(t.Context(), []string{"nftables"}, opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"nftables", "libc6", "libnftables1"} {
			if !slices.ContainsFunc(installed,
				func(p Package) bool { return p.Name == name && p.Version != "" && len(p.SHA256) == 64 }) {
				t.Errorf("%s is not among %v", name, installed)
			}
		}
		digest, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[digest.String()] = true
		// Found again, it is the same, and no mirror is asked.
		again, _, err := Extract(t.Context(), []string{"nftables"}, opts)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := again.Digest(); err != nil || second != digest {
			t.Errorf("found again, it is %s, not %s: %v", second, digest, err)
		}
	}
	if len(digests) != 1 {
		t.Errorf("two layers of the same packages: %v", digests)
	}
}
