//go:build unix

package lock

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
)

// The second to come hears that it waits, gives up with its context, and gets the lock once it is free.
func TestTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	release, err := Take(t.Context(), path, func() { t.Error("nobody held it") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("interrupted")
	waits := 0
	if _, err := Take(ctx, path, func() { waits++; cancel(cause) }); !errors.Is(err, cause) || waits != 1 {
		t.Errorf("waited %d times, then %v", waits, err)
	}
	release()
	release, err = Take(t.Context(), path, func() { t.Error("it was free again") })
	if err != nil {
		t.Fatal(err)
	}
	release()
}
