package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"time"

	"ambientlab/internal/command"
)

const (
	// patience is how long a build may take without output: one that finds everything in Go's cache is done by then.
	patience = 3 * time.Second
	// interval is how often a long build reports its progress.
	interval = 30 * time.Second
)

// runGo is the Go command that Mage calls: go itself, but a build happens where the magefile is, and reports its
// progress on talk if it takes long, unless that is to be JSON lines. It returns go's exit code.
func runGo(args []string, talk io.Writer) int {
	if len(args) == 0 || args[0] != "build" {
		return goCommand(args, talk)
	}
	args = append([]string{"build", "-overlay", os.Getenv(overlayVariable)}, args[1:]...)
	if os.Getenv("SM_OUTPUT") == "json" {
		return goCommand(args, talk)
	}
	// The Go command reports no progress but this: with -v it names each package that it compiles.
	packages := &counter{to: talk}
	began := time.Now()
	done, announced := make(chan struct{}), make(chan bool)
	go func() { announced <- announce(packages, done) }()
	code := goCommand(append([]string{"build", "-v"}, args[1:]...), packages)
	close(done)
	packages.flush()
	if <-announced && code == 0 {
		packages.say("Compiled in %.0f s.", time.Since(began).Seconds())
	}
	return code
}

func goCommand(args []string, stderr io.Writer) int {
	run := exec.Command(os.Getenv(goVariable), args...)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, stderr
	run.Dir, run.Env = os.Getenv(dirVariable), append(os.Environ(), command.GoBuild()...)
	err := run.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	default:
		fmt.Fprintln(stderr, err)
		return 1
	}
}

// announce prints that the lab is compiled once that takes longer than patience, and its progress every interval, until
// done is closed. It tells whether it printed anything.
func announce(packages *counter, done <-chan struct{}) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return false
	case <-timer.C:
	}
	packages.say("Compiling the lab itself: one to three minutes on two cores the first time, a moment after that.")
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return true
		case <-tick.C:
			packages.say("Compiled %d packages so far.", packages.count())
		}
	}
}

// counter counts the packages that the Go command names on its standard error, and writes everything else to its
// destination.
type counter struct {
	to io.Writer

	mu   sync.Mutex
	seen int
	rest []byte // a line that has not ended yet
}

// named matches a line that is an import path: messages have blanks.
var named = regexp.MustCompile(`^[\w./~+-]+\n$`)

func (c *counter) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rest = append(c.rest, text...)
	for {
		end := bytes.IndexByte(c.rest, '\n')
		if end < 0 {
			return len(text), nil
		}
		line := c.rest[:end+1]
		c.rest = c.rest[end+1:]
		if named.Match(line) {
			c.seen++
		} else if _, err := c.to.Write(line); err != nil {
			return 0, err
		}
	}
}

// flush writes what did not end in a line.
func (c *counter) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.to.Write(c.rest)
	c.rest = nil
}

func (c *counter) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.to, format+"\n", args...)
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
