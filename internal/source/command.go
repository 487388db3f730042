package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// command is a command to run: a folder, what is added to the environment, and its words.
type command struct {
	dir  string
	env  []string
	name string
	args []string
}

// String is the command as one would type it.
func (c command) String() string {
	words := append([]string{c.name}, c.args...)
	for i, w := range words {
		if strings.ContainsAny(w, " '\"$") {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	line := strings.Join(words, " ")
	if len(c.env) > 0 {
		line = strings.Join(c.env, " ") + " " + line
	}
	if c.dir != "" {
		line = "cd " + c.dir + " && " + line
	}
	return line
}

// runner runs a command and returns its standard output; the error keeps what it said on standard error.
type runner func(context.Context, command) ([]byte, error)

// runError is a command that failed, with what it said.
type runError struct {
	command command
	output  string
	err     error
}

func (e *runError) Error() string {
	return fmt.Sprintf("%s: %v\n%s", e.command, e.err, e.output)
}

func (e *runError) Unwrap() error { return e.err }

// interruptLimit is how long a command may take to end after it was interrupted.
const interruptLimit = 3 * time.Second

func execute(ctx context.Context, c command) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.name, c.args...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	// A command is interrupted together with what it runs, as by Ctrl-C on a terminal: a signal to the Go command alone
	// leaves its compilers to work on. Whatever is left of its process group in the end is killed. Mage gives a target
	// five seconds in all.
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return interruptGroup(cmd.Process) }
	cmd.WaitDelay = interruptLimit
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			killGroup(cmd.Process)
		}
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is needed and was not found: %w", c.name, err)
	}
	if err != nil {
		return nil, &runError{command: c, output: strings.TrimSpace(stderr.String()), err: err}
	}
	return stdout.Bytes(), nil
}
