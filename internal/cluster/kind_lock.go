package cluster

import (
	"context"
	"fmt"
	"path/filepath"

	"ambientlab/internal/engine"
	"ambientlab/internal/filelock"
)

// lock keeps two runs from working on the same cluster: the second run would take a cluster that the first is creating
// for the remains of a killed run.
func (k *Kind) lock(ctx context.Context) (unlock func(), err error) {
	waiting := fmt.Sprintf("waiting for another run that is working on cluster %s", k.opts.Name)
	lock, err := filelock.Wait(
		ctx, filepath.Join(k.opts.LockDir, "kind-"+k.opts.Name), func() { engine.Progress(ctx, "%s", waiting) },
	)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", waiting, err)
	}
	return func() { _ = lock.Unlock() }, nil
}
