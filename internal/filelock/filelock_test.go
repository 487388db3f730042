package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// A second process is told that it waits, stops waiting with its context, and gets the lock once it is released.
func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	held, err := Wait(t.Context(), path, func() { t.Error("no process held the lock") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	waits := 0
	if _, err := Wait(ctx, path, func() { waits++; cancel(cause) }); !errors.Is(err, cause) || waits != 1 {
		t.Errorf("waited %d times, then %v", waits, err)
	}
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	held, err = Wait(t.Context(), path, func() { t.Error("the lock was released") })
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(held.Unlock(), held.Unlock()); err != nil {
		t.Error(err)
	}
}

// A process that waits for a lock whose file and folder are removed gets the lock of the new file.
func TestWaitWhileTheFolderIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	path := filepath.Join(dir, "lock")
	held, err := Wait(t.Context(), path, func() {})
	if err != nil {
		t.Fatal(err)
	}
	var removed atomic.Bool
	next, err := Wait(t.Context(), path, func() {
		if err := errors.Join(held.Remove(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		removed.Store(true)
	})
	if err != nil || !removed.Load() {
		t.Fatal(err, removed.Load())
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the lock is of a file that does not exist: %v", err)
	}
	if _, err := Try(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a second lock: %v", err)
	}
	if err := next.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestSharedLocks(t *testing.T) {
	dir := t.TempDir()
	one, err := TryShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := TryShared(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryFolder(dir); !errors.Is(err, ErrHeld) {
		t.Errorf("a writer together with two readers: %v", err)
	}
	if err := errors.Join(one.Unlock(), two.Unlock()); err != nil {
		t.Fatal(err)
	}
	writer, err := TryFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryShared(dir); !errors.Is(err, ErrHeld) {
		t.Errorf("a reader together with a writer: %v", err)
	}
	if err := writer.Unlock(); err != nil {
		t.Error(err)
	}
}
