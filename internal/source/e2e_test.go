//go:build e2e

package source

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// versions are commands of each image that print something and end: that the program starts at all is what shows that
// its libraries and its paths are right.
func versions() map[string][][]string {
	return map[string][][]string{
		"docker.io/fortio/fortio:1.75.3": {{"/usr/bin/fortio", "version"}},
		"docker.io/istio/install-cni:1.31.4-distroless": {
			{"/usr/local/bin/install-cni", "--help"},
			{"/opt/cni/bin/istio-cni"},
			{"/usr/sbin/iptables-nft-save", "--version"},
			{"/usr/sbin/iptables-legacy", "--version"},
			{"/usr/sbin/iptables", "--version"},
			{"/usr/sbin/ip6tables-restore", "--version"},
			{"/usr/sbin/ipset", "--version"},
			{"/usr/sbin/nft", "--version"},
		},
		"docker.io/istio/pilot:1.31.4-distroless": {{"/usr/local/bin/pilot-discovery", "version"}},
		"docker.io/istio/proxyv2:1.31.4-distroless": {
			{"/usr/local/bin/pilot-agent", "version"},
			{"/usr/local/bin/envoy", "--version"},
		},
		"docker.io/istio/ztunnel:1.31.4-distroless": {{"/usr/local/bin/ztunnel", "version"}},
		"docker.io/mccutchen/go-httpbin:v2.26.0":    {{"/bin/go-httpbin", "-help"}},
		"docker.io/prom/prometheus:v3.10.0":         {{"/bin/prometheus", "--version"}},
		"ghcr.io/prometheus-operator/prometheus-config-reloader:v0.89.0": {
			{"/bin/prometheus-config-reloader", "--help"},
		},
		"quay.io/metallb/controller:v0.16.1": {{"/controller", "--help"}},
		"quay.io/metallb/speaker:v0.16.1":    {{"/speaker", "--help"}},
	}
}

// TestImagesInDocker builds every image, loads it into the Docker engine and starts its programs.
func TestImagesInDocker(t *testing.T) {
	b, err := New(Options{Progress: func(component, message string) { t.Logf("%s: %s", component, message) }})
	if err != nil {
		t.Fatal(err)
	}
	only := os.Getenv("E2E_IMAGE")
	var images []Image
	for _, ref := range b.Refs() {
		if !strings.Contains(ref, only) {
			continue
		}
		begin := time.Now()
		image, err := b.Image(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		digest, err := image.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %s in %s, %d components", ref, digest, time.Since(begin).Round(time.Millisecond),
			len(image.Modules))
		images = append(images, image)
		t.Run(strings.NewReplacer("/", "_", ":", "_").Replace(ref), func(t *testing.T) {
			load(t, image)
			for _, words := range versions()[ref] {
				start(t, image.Ref, words)
			}
		})
	}
	var bom bytes.Buffer
	if err := b.SBOM(images, &bom); err != nil {
		t.Fatal(err)
	}
	t.Logf("bill of materials: %d bytes", bom.Len())
}

func load(t *testing.T, image Image) {
	t.Helper()
	archive := filepath.Join(t.TempDir(), "image.tar")
	tag, err := name.NewTag(image.Ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, image.Image); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "docker", "load", "--input", archive).CombinedOutput(); err != nil {
		t.Fatalf("docker load: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		_ = exec.CommandContext(ctx, "docker", "image", "rm", "--force", image.Ref).Run()
	})
}

// start runs one program; a program that cannot be started ends with 125 to 127, or with the loader's 127.
func start(t *testing.T, ref string, words []string) {
	t.Helper()
	args := append([]string{"run", "--rm", "--network=none", "--entrypoint", words[0], ref}, words[1:]...)
	out, err := exec.CommandContext(t.Context(), "docker", args...).CombinedOutput()
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	t.Logf("%s: %v: %s", strings.Join(words, " "), err, first)
	var exit *exec.ExitError
	if e, ok := err.(*exec.ExitError); ok {
		exit = e
	}
	if err != nil && (exit == nil || exit.ExitCode() >= 125) {
		t.Errorf("%s of %s does not start: %v\n%s", words[0], ref, err, out)
	}
}

// TestRealBuildTwice builds a small image twice from nothing but the build cache: both have one digest.
func TestRealBuildTwice(t *testing.T) {
	digests := map[string]bool{}
	for range 2 {
		b, err := New(Options{CacheDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		image, err := b.Image(t.Context(), "docker.io/mccutchen/go-httpbin:v2.26.0")
		if err != nil {
			t.Fatal(err)
		}
		digest, err := image.Image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests[digest.String()] = true
	}
	if len(digests) != 1 {
		t.Errorf("two builds gave %v", digests)
	}
}
