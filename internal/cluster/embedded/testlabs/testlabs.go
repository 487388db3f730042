// Package testlabs keeps tests from leaving control planes behind. Their processes outlive whoever started them, which
// is what they are for, so that a test process that is interrupted, killed or out of time would leak them.
package testlabs

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/source/lock"
)

// Remove deletes the lab of a name in a folder for state, as the tests lay them out: the kubeconfig is beside that folder.
type Remove func(ctx context.Context, stateDir, name string) error

const (
	prefix = "ambientlab-test-"
	owner  = "owner.lock" // held while the test process lives
	limit  = time.Minute
)

// Main runs a package's tests with a folder of their own for temporary files, in which t.TempDir then lies. Before, it
// removes the labs of test processes that are gone; when it is interrupted, its own.
func Main(m *testing.M, remove Remove) int {
	parent := os.TempDir()
	Sweep(parent, remove)
	root, err := os.MkdirTemp(parent, prefix)
	release := func() {}
	if err == nil {
		// What is not used any more is collected, and a file closed with it, and its lock is then free.
		release, err = lock.Take(context.Background(), filepath.Join(root, owner), func() {})
	}
	if err == nil {
		err = os.Setenv("TMPDIR", root)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a folder for the tests:", err)
		return 1
	}
	defer release()
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
		ctx, cancel := context.WithCancel(context.Background())
		release, err := lock.Take(ctx, filepath.Join(root, owner), cancel)
		if err == nil {
			clean(root, remove)
			release()
		}
		cancel()
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
