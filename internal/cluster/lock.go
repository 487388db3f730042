package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"ambientlab/internal/engine"
)

const lockInterval = 200 * time.Millisecond

// lock keeps two runs from working on the same cluster: the second would take what
// the first is just creating for the remains of a killed run. It is the operating
// system's lock on an empty file, so it is gone with its process however that ends.
func (k *Kind) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(k.opts.LockDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the directory for locks: %w", err)
	}
	path := filepath.Join(k.opts.LockDir, "kind-"+k.opts.Name)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	for {
		held, err := tryLock(file)
		if err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		if held {
			return func() { _ = file.Close() }, nil // closing releases it
		}
		engine.Progress(ctx, "waiting for another run that is working on cluster %s", k.opts.Name)
		select {
		case <-k.after(lockInterval):
		case <-ctx.Done():
			_ = file.Close()
			return nil, fmt.Errorf("waiting for another run that is working on cluster %s: %w", k.opts.Name, context.Cause(ctx))
		}
	}
}
