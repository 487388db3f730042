// Package command runs programs and keeps what they print.
package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Command is a program with its arguments.
type Command struct {
	// Dir is the working directory; empty means that of this process.
	Dir string
	// Env is added to the environment of this process.
	Env  []string
	Name string
	Args []string
	// Stdout, if set, gets the standard output in place of Run's result.
	Stdout io.Writer
	// Stderr, if set, gets the standard error as it is printed.
	Stderr io.Writer
}

// String is the command as a user would type it in a shell.
func (c Command) String() string {
	words := append([]string{c.Name}, c.Args...)
	for i, w := range words {
		words[i] = Quoted(w)
	}
	line := strings.Join(words, " ")
	if len(c.Env) > 0 {
		line = strings.Join(c.Env, " ") + " " + line
	}
	if c.Dir != "" {
		line = "cd " + c.Dir + " && " + line
	}
	return line
}

// Quoted is a word as a shell reads it.
func Quoted(word string) string {
	if word != "" && !strings.ContainsAny(word, " \t\n'\"$`\\;&|<>()*?[]#~!{}") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Runner is the type of Run.
type Runner func(context.Context, Command) ([]byte, error)

// Error is a command that failed.
type Error struct {
	Command Command
	// Output is the end of standard output and standard error.
	Output string
	// Err is why it failed, such as its exit code.
	Err error
}

// Error is the command, why it failed and what it printed.
func (e *Error) Error() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %v\n%s", e.Command, e.Err, e.Output))
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// interruptLimit is how long a command may take to end after it was interrupted. Mage gives a target five seconds in
// all.
const interruptLimit = 3 * time.Second

// outputLines is how many lines of output an Error keeps.
const outputLines = 40

// Run runs a command and returns its standard output. The error of a command that fails is an *Error, and its standard
// output is returned with it. If the program is not installed, the error is exec.ErrNotFound; if ctx ends first, it is
// the cause.
func Run(ctx context.Context, c Command) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	// A command is interrupted together with the processes that it starts, as by Ctrl-C on a terminal: a signal to the
	// go command alone does not end its compilers. What is left of its process group in the end is killed.
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return interruptGroup(cmd.Process) }
	cmd.WaitDelay = interruptLimit
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.Stdout != nil {
		cmd.Stdout = c.Stdout
	}
	if c.Stderr != nil {
		cmd.Stderr = io.MultiWriter(&stderr, c.Stderr)
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		if cmd.Process != nil {
			killGroup(cmd.Process)
		}
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("%s is needed and was not found: %w", c.Name, err)
	}
	if err != nil {
		output := strings.TrimSpace(stdout.String() + stderr.String())
		lines := slices.Collect(strings.Lines(output))
		lines = lines[max(0, len(lines)-outputLines):]
		return stdout.Bytes(), &Error{Command: c, Output: strings.Join(lines, ""), Err: err}
	}
	return stdout.Bytes(), nil
}

// GoBuild is the environment for a go command that compiles much. A program is hundreds of small packages, each
// compiled by a process of its own, and with Go's usual setting a third of the processor time of such a process is
// garbage collection. The limit keeps the few large packages from using much more memory than they do otherwise. What
// the environment sets itself is kept (https://pkg.go.dev/runtime, GOGC and GOMEMLIMIT).
func GoBuild() []string {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	settings := []string{"GOGC=400"}
	if os.Getenv("GOMEMLIMIT") == "" {
		settings = append(settings, "GOMEMLIMIT=1GiB")
	}
	return settings
}
