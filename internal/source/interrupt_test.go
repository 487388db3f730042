//go:build unix

package source

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"ambientlab/internal/command"
)

var errInterrupted = errors.New("interrupted by the test")

// TestInterruptedBuild interrupts a real build, of the program that needs the fewest packages: neither the folder for
// temporary files nor the cache may hold anything of it, but for the lock.
func TestInterruptedBuild(t *testing.T) {
	temporary, cache := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	t.Setenv("GOCACHE", t.TempDir()) // so that there is something to compile
	b, err := New(Options{CacheDir: cache})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	building := b.run
	b.run = func(ctx context.Context, c command.Command) ([]byte, error) {
		if c.Args[0] != "build" {
			return building(ctx, c)
		}
		done := make(chan struct{})
		defer close(done)
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				for _, dir := range []string{temporary, filepath.Join(cache, "bin", "*", "*", "*", "build-*")} {
					if found, _ := filepath.Glob(filepath.Join(dir, "go-build*", "b*")); len(found) > 0 {
						cancel(errInterrupted)
					}
				}
				select {
				case <-tick.C:
				case <-done:
					return
				}
			}
		}()
		return building(ctx, c)
	}
	if _, err := b.Binary(ctx, "pause"); !errors.Is(err, errInterrupted) {
		t.Fatalf("got %v", err)
	}
	for _, pattern := range []string{
		filepath.Join(temporary, "*"),
		filepath.Join(cache, "bin", "*", "pause", "*", "*"),
	} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
