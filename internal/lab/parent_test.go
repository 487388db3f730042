package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestTargetEndsWithItsMage(t *testing.T) {
	for name, byMage := range map[string]bool{"started by mage": true, "started by anybody else": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var parent atomic.Int64
				parent.Store(42)
				ctx, cancel := withParent(t.Context(), byMage, func() int { return int(parent.Load()) })
				defer cancel()
				time.Sleep(time.Hour) // of synctest's fake time
				if ctx.Err() != nil {
					t.Fatalf("it ended under a living parent: %v", context.Cause(ctx))
				}
				parent.Store(1)
				time.Sleep(parentEvery) // of the same fake time
				synctest.Wait()
				if ended := errors.Is(context.Cause(ctx), errOrphaned); ended != byMage {
					t.Errorf("ended with its parent: %v, want %v", ended, byMage)
				}
			})
		})
	}
}

// nohup is what keeps a run going when its terminal is closed.
func TestNohup(t *testing.T) {
	for _, ignored := range []bool{false, true} {
		got := slices.Contains(cancelling(func(s os.Signal) bool { return ignored && s == syscall.SIGHUP }),
			os.Signal(syscall.SIGHUP))
		if got == ignored {
			t.Errorf("SIGHUP ignored: %v, and it ends a target: %v", ignored, got)
		}
	}
}

func TestInFolder(t *testing.T) {
	dir := t.TempDir()
	cache, link, elsewhere := filepath.Join(dir, "cache"), filepath.Join(dir, "link"), filepath.Join(dir, "elsewhere")
	program := filepath.Join(cache, "0a1b")
	for _, err := range []error{
		os.Mkdir(cache, 0o755), os.Mkdir(elsewhere, 0o755), os.Symlink(cache, link),
		os.WriteFile(program, nil, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for folder, want := range map[string]bool{
		cache: true, link: true, elsewhere: false, dir: false,
		filepath.Join(dir, "none"): false,
	} {
		if got := inFolder(program, folder); got != want {
			t.Errorf("%s in %s: %v", program, folder, got)
		}
	}
}
