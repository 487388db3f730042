// Package embeddedtest removes the embedded control planes that tests leave. Their processes outlive the process that
// starts them, so a test process that is interrupted, killed or out of time would leak them.
package embeddedtest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/filelock"
)

// Remove deletes the lab of a name in a folder for state, as the tests lay them out: the kubeconfig is next to that
// folder.
type Remove func(ctx context.Context, stateDir, name string) error

const (
	prefix = "ambientlab-test-"
	owner  = "owner.lock" // held while the test process lives
	limit  = time.Minute
)

// Main runs a package's tests with a folder of their own for temporary files, which t.TempDir then uses. Before, it
// removes the labs of test processes that are gone; when it is interrupted, its own.
func Main(m *testing.M, remove Remove) int {
	parent := os.TempDir()
	Sweep(parent, remove)
	root, err := os.MkdirTemp(parent, prefix)
	var lock *filelock.Lock
	if err == nil {
		lock, err = filelock.Try(filepath.Join(root, owner))
	}
	if err == nil {
		err = os.Setenv("TMPDIR", root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the tests:", err)
		return 1
	}
	defer lock.Unlock() // which also keeps the lock from being collected, and so released, before the tests end
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		clean(root, remove)
		os.Exit(1)
	}()
	code := m.Run()
	clean(root, remove)
	return code
}

// Sweep removes what test processes left that are gone.
func Sweep(parent string, remove Remove) {
	roots, _ := filepath.Glob(filepath.Join(parent, prefix+"*"))
	for _, root := range roots {
		if _, err := os.Stat(filepath.Join(root, owner)); err != nil {
			continue // it is only being made
		}
		if lock, err := filelock.Try(filepath.Join(root, owner)); err == nil {
			clean(root, remove)
			_ = lock.Unlock()
		}
	}
}

// clean removes every lab in a test process's folder, and the folder where that succeeded.
func clean(root string, remove Remove) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	labs, _ := filepath.Glob(filepath.Join(root, "*", "*", "state", "*", "lab.json"))
	for _, path := range labs {
		dir := filepath.Dir(path)
		if err := remove(ctx, filepath.Dir(dir), filepath.Base(dir)); err != nil {
			fmt.Fprintf(os.Stderr, "removing the lab in %s: %v\n", dir, err)
			return
		}
	}
	if err := os.RemoveAll(root); err != nil {
		fmt.Fprintln(os.Stderr, "removing the tests' folder:", err)
	}
}
