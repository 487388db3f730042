// Package filelock keeps several processes from changing the same thing at once. A lock is the operating system's lock
// on a file (github.com/gofrs/flock), so it ends with the process that holds it, however that process ends.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
)

// ErrHeld says that another process, or another part of this one, holds the lock.
var ErrHeld = errors.New("locked by another process")

// retryInterval is how often Wait tries again: the kernel can wait for a lock, but a context cannot end that wait.
const retryInterval = 100 * time.Millisecond

// Lock is a lock that is held.
type Lock struct{ flock *flock.Flock }

// Try takes the lock of the file at path for writing and creates the file if it does not exist. If the lock is held,
// for writing or for reading, the error is ErrHeld.
func Try(path string) (*Lock, error) {
	return try(flock.New(path), (*flock.Flock).TryLock)
}

// TryShared takes the lock of an existing file or folder for reading. Any number of readers can hold it at once. If the
// lock is held for writing, the error is ErrHeld.
func TryShared(path string) (*Lock, error) {
	return try(flock.New(path, flock.SetFlag(os.O_RDONLY)), (*flock.Flock).TryRLock)
}

// TryFolder takes the lock of an existing folder for writing, as Try does for a file.
func TryFolder(path string) (*Lock, error) {
	return try(flock.New(path, flock.SetFlag(os.O_RDONLY)), (*flock.Flock).TryLock)
}

// try repeats while the file is replaced or removed between opening and locking it: such a lock excludes no one.
func try(f *flock.Flock, take func(*flock.Flock) (bool, error)) (*Lock, error) {
	for {
		held, err := take(f)
		if err != nil {
			return nil, fmt.Errorf("locking %s: %w", f.Path(), err)
		}
		if !held {
			return nil, ErrHeld
		}
		locked, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("locking %s: %w", f.Path(), err), f.Unlock())
		}
		if current, err := os.Stat(f.Path()); err == nil && os.SameFile(locked, current) {
			return &Lock{flock: f}, nil
		}
		if err := f.Unlock(); err != nil {
			return nil, fmt.Errorf("unlocking %s: %w", f.Path(), err)
		}
	}
}

// Wait takes the lock of the file at path for writing and waits while it is held. It creates the file and its folder,
// for this user only, if they do not exist. It calls waiting once before it waits. If ctx ends first, the error is its
// cause.
func Wait(ctx context.Context, path string, waiting func()) (*Lock, error) {
	for waited := false; ; waited = true {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, fmt.Errorf("creating the folder of a lock: %w", err)
		}
		lock, err := Try(path)
		if err == nil {
			return lock, nil
		}
		// The process that held the lock may have removed the folder together with the file.
		if !errors.Is(err, ErrHeld) && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if !waited {
			waiting()
		}
		timer := time.NewTimer(retryInterval)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// Unlock releases the lock and leaves the file. It does nothing if the lock was released before.
func (l *Lock) Unlock() error {
	if err := l.flock.Unlock(); err != nil {
		return fmt.Errorf("unlocking %s: %w", l.flock.Path(), err)
	}
	return nil
}

// Remove removes the file, then releases the lock.
func (l *Lock) Remove() error {
	removeErr := os.Remove(l.flock.Path())
	unlockErr := l.Unlock()
	if removeErr != nil && unlockErr == nil {
		removeErr = os.Remove(l.flock.Path()) // Windows removes no file that is open
	}
	return errors.Join(removeErr, unlockErr)
}
