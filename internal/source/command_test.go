//go:build unix

package source

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var errStop = errors.New("interrupted by the test")

// interrupted runs a command and interrupts it once a file that matches a pattern is there.
func interrupted(t *testing.T, c command, pattern string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := execute(ctx, c)
		done <- err
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it ended before it was interrupted: %v", err)
		case <-tick.C:
		}
	}
	cancel(errStop)
	if err := <-done; !errors.Is(err, errStop) {
		t.Fatalf("got %v", err)
	}
}

// TestInterruptedCommand wants a command interrupted in the way that it heeds, and what it started ended with it.
func TestInterruptedCommand(t *testing.T) {
	dir := t.TempDir()
	// A shell lets what it starts in the background ignore interrupts.
	script := `trap 'touch tidied; exit 1' INT; sleep 600 >/dev/null 2>&1 & echo $! >new; mv new pid; wait`
	interrupted(t, command{dir: dir, name: "/bin/sh", args: []string{"-c", script}}, filepath.Join(dir, "pid"))
	if _, err := os.Stat(filepath.Join(dir, "tidied")); err != nil {
		t.Errorf("it was not interrupted: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		t.Fatalf("pid %q, %v", raw, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ended(pid) != nil; {
		if time.Now().After(deadline) {
			t.Fatalf("what it started still runs: %v", ended(pid))
		}
	}
}

// ended gives an error while a process runs that nobody waits for. Where no process adopts orphans, one that ended stays
// as a zombie for ever.
func ended(pid int) error {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	if raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(raw), ") Z ") {
		return nil
	}
	return errors.New("process " + strconv.Itoa(pid))
}

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
	b.run = func(ctx context.Context, c command) ([]byte, error) {
		if c.args[0] != "build" {
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
						cancel(errStop)
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
	if _, err := b.Binary(ctx, "pause"); !errors.Is(err, errStop) {
		t.Fatalf("got %v", err)
	}
	for _, pattern := range []string{filepath.Join(temporary, "*"), filepath.Join(cache, "bin", "*", "pause", "*", "*")} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
