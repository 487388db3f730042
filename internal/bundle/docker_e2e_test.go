//go:build e2e

package bundle

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
)

// TestLoadIntoDocker loads an image into the Docker engine of this machine, finds it held there, and replaces it by
// another of the same name.
func TestLoadIntoDocker(t *testing.T) {
	docker, err := client.New(client.FromEnv)
	if err != nil {
		t.Fatal(err)
	}
	const ref = "ambientlab.test/loaded:1"
	for _, layers := range []int{1, 2} {
		dir := filepath.Join(t.TempDir(), "bundle")
		writeBundle(t, dir, map[string]v1.Image{ref: makeImage(t, layers, "random bytes")})
		for _, held := range []bool{false, true} {
			got, err := LoadNodeImage(t.Context(), docker, openBundle(t, dir), ref)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // by ID: the name goes from the first image to the second
				ctx := context.WithoutCancel(t.Context())
				if _, err := docker.ImageRemove(ctx, got.ID, client.ImageRemoveOptions{Force: true}); err != nil &&
					!errdefs.IsNotFound(err) {
					t.Error(err)
				}
			})
			if got.Held != held || got.Ref != ref {
				t.Errorf("%d layers: %+v, want held %t", layers, got, held)
			}
		}
	}
}
