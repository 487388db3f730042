package bundle

import (
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func TestParseReference(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	tests := map[string]struct{ name, text, familiar string }{
		"busybox": {
			"docker.io/library/busybox:latest", "docker.io/library/busybox:latest",
			"busybox:latest",
		},
		"kindest/node:v1.36.4@" +
			digest: {
			"docker.io/kindest/node:v1.36.4", "docker.io/kindest/node:v1.36.4@" + digest,
			"kindest/node:v1.36.4",
		},
		"quay.io/metallb/speaker:v1": {
			"quay.io/metallb/speaker:v1", "quay.io/metallb/speaker:v1",
			"quay.io/metallb/speaker:v1",
		},
		"127.0.0.1:5000/a@" +
			digest: {"127.0.0.1:5000/a@" + digest, "127.0.0.1:5000/a@" + digest, "127.0.0.1:5000/a@" + digest},
	}
	for in, want := range tests {
		got, err := ParseReference(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if got.Name != want.name || got.String() != want.text || got.Familiar() != want.familiar {
			t.Errorf("%s gives %q, %q, %q; want %q", in, got.Name, got.String(), got.Familiar(), want)
		}
	}
	for _, in := range []string{"", "A B", "a:b:c:d", "a@sha256:12", "a@sha512:" + strings.Repeat("ab", 64) + "0"} {
		if got, err := ParseReference(in); err == nil {
			t.Errorf("%q gives %v", in, got)
		}
	}
}

func TestParseIndexRefuses(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	const manifest = `"mediaType":"application/vnd.oci.image.manifest.v1+json"`
	entry := func(fields string) string { return `{"schemaVersion":2,"manifests":[{` + fields + `}]}` }
	named := `,"size":9,"annotations":{"org.opencontainers.image.ref.name":"a:1"}`
	tests := map[string]struct{ index, says string }{
		"no JSON":    {`<html>`, "not an image index"},
		"old schema": {`{"schemaVersion":1}`, "schema version 1"},
		"unnamed":    {entry(manifest + `,"size":9,"digest":"` + digest + `"`), "no annotation"},
		"no digest":  {entry(manifest + named), "a:1"},
		"sha512":     {entry(manifest + named + `,"digest":"sha512:` + strings.Repeat("ab", 64) + `"`), "sha512"},
		"nested index": {entry(`"mediaType":"application/vnd.oci.image.index.v1+json","digest":"` + digest + `"` +
			named), "one platform"},
		"huge manifest": {entry(manifest + strings.Replace(named, ":9", ":999999999", 1) + `,"digest":"` + digest +
			`"`), "999999999 bytes"},
		"bad file": {
			`{"schemaVersion":2,"manifests":[],"annotations":{"lab.file.../x":"` + digest + `"}}`,
			"no plain file name",
		},
	}
	for name, test := range tests {
		if _, err := parseIndex([]byte(test.index)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s gives %v, want it to say %q", name, err, test.says)
		}
	}
}

// Whatever the parser accepts must be safe to use as a file name in the layout, and must survive being written and read
// again.
func FuzzParseIndex(f *testing.F) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":` +
		`"application/vnd.oci.image.manifest.v1+json","size":9,"digest":"` + digest +
		`","platform":{"os":"linux","architecture":"arm64","variant":"v8"},` +
		`"annotations":{"org.opencontainers.image.ref.name":"docker.io/istio/pilot:1",` +
		`"lab.substitute":"a substitute","lab.source-digest":"` + digest + `"}}],` +
		`"annotations":{"lab.file.sbom.json":"` + digest + `"}}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../../../../etc/passwd"}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":null}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseIndex(raw)
		if err != nil {
			return
		}
		check := func(h v1.Hash) {
			if name := blobName(h); !filepath.IsLocal(name) || filepath.Dir(name) != blobDir ||
				len(filepath.Base(name)) != 64 {
				t.Fatalf("a blob would lie at %q", name)
			}
		}
		for _, e := range c.entries {
			check(e.Digest)
			if again, err := ParseReference(e.Ref); err != nil || again.Name != e.Ref {
				t.Fatalf("reference %q is read again as %q, %v", e.Ref, again.Name, err)
			}
		}
		for name := range c.files {
			if !filepath.IsLocal(name) || filepath.Base(name) != name {
				t.Fatalf("a file would lie at %q", name)
			}
		}
		if len(c.entries) == 0 {
			return
		}
		out, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseIndex(out)
		if err != nil {
			t.Fatalf("reading what was written: %v\n%s", err, out)
		}
		if len(again.entries) != len(c.entries) || len(again.files) != len(c.files) {
			t.Fatalf("%d entries and %d files became %d and %d", len(c.entries), len(c.files), len(again.entries),
				len(again.files))
		}
	})
}
