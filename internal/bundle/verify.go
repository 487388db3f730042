package bundle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Verify reads every blob of the bundle and compares its content with its digest. The error names each blob that is
// wrong, with an image that has it, and each file among the blobs that is not a blob.
func (b *Bundle) Verify(ctx context.Context) error {
	names, err := b.store.names()
	if err != nil {
		return fmt.Errorf("listing the bundle %s: %w", b.path, err)
	}
	owners := b.owners()
	slices.Sort(names)
	found := make([]error, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range names {
		if !strings.HasPrefix(name, "blobs/") {
			continue
		}
		group.Go(func() error {
			found[i] = b.verifyBlob(ctx, name, owners[name])
			return context.Cause(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("verifying the bundle %s: %w", b.path, err)
	}
	for name := range b.files {
		if _, err := b.file(name); err != nil {
			found = append(found, err)
		}
	}
	if err := errors.Join(found...); err != nil {
		return b.corrupt(err)
	}
	return nil
}

// owners returns, by the name of a blob, the first image that has it.
func (b *Bundle) owners() map[string]string {
	owners := map[string]string{}
	for _, e := range b.entries {
		for _, d := range e.blobs {
			if owners[blobName(d.Digest)] == "" {
				owners[blobName(d.Digest)] = e.Ref
			}
		}
	}
	return owners
}

func (b *Bundle) verifyBlob(ctx context.Context, name, owner string) error {
	hex, ok := strings.CutPrefix(name, blobDir+"/")
	want, err := parseHash("sha256:" + hex)
	if !ok || err != nil {
		return fmt.Errorf("the file %s is not a blob", name)
	}
	f, err := b.store.Open(name)
	if err != nil {
		return fmt.Errorf("blob %s: %w", want, err)
	}
	defer f.Close()
	got, _, err := v1.SHA256(untilDone{ctx, f})
	switch {
	case err != nil:
		return fmt.Errorf("reading blob %s: %w", want, err)
	case got == want:
		return nil
	case owner == "":
		return altered(want, got)
	default:
		return fmt.Errorf("%s: %w", owner, altered(want, got))
	}
}
