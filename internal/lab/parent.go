package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/magefile/mage/mg"
)

// parentEvery is how often the program checks whether mage still runs. There is nothing portable to wait for: Linux's
// PR_SET_PDEATHSIG follows the thread that started the child, and Go moves between threads (golang/go#27505).
const parentEvery = 500 * time.Millisecond

// errOrphaned is why a target stops whose mage has ended.
var errOrphaned = errors.New("the mage that started this target has ended")

// withParent gives a context that ends when the parent process does, where that parent is mage. mage waits for the
// program that it has built and passes no signal on: it ignores SIGINT, which the program gets from the terminal
// itself, and ends on SIGTERM (mage/main.go, RunCompiled). A CI job that is cancelled would otherwise leave an install
// that goes on, or a dashboard that keeps its ports. A program that a user compiled may outlive its parent, such as a
// shell.
func withParent(ctx context.Context, startedByMage bool, parent func() int) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if startedByMage {
		go watchParent(ctx, parent(), parent, func() { cancel(errOrphaned) })
	}
	return ctx, func() { cancel(context.Canceled) }
}

func watchParent(ctx context.Context, first int, parent func() int, gone func()) {
	tick := time.NewTicker(parentEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if parent() != first { // an orphan is given to init or to a subreaper
				gone()
				return
			}
		}
	}
}

// startedByMage tells whether this program is in the folder for mage's builds, under a name that is a hash: only mage
// starts it from there. `mage -compile` writes elsewhere.
func startedByMage() bool {
	program, err := os.Executable()
	return err == nil && inFolder(program, mg.CacheDir())
}

// inFolder tells whether a file is directly in a folder, also through symbolic links.
func inFolder(file, folder string) bool {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return false
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return false
	}
	if folder, err = filepath.EvalSymlinks(folder); err != nil {
		return false
	}
	return filepath.Dir(file) == folder
}
