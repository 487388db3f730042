package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"
)

// endLimit is how long a command that is attached may take to end after it was told to.
const endLimit = 10 * time.Second

// Attach runs a command with the standard streams of this process and returns its exit code. A signal N that ended it
// counts as exit code 128+N, as in a shell. When ctx ends, the command and the processes that it started get SIGTERM,
// and what is left of them after ten seconds is killed; the error is then the cause. Another error is for a command
// that cannot be started.
//
// The command has a process group of its own, unless it is on a terminal: a terminal's keys reach only one group.
func Attach(ctx context.Context, c Command, onTerminal bool) (code int, err error) {
	cmd := exec.Command(c.Name, c.Args...)
	cmd.Dir, cmd.Env = c.Dir, append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if !onTerminal {
		cmd.SysProcAttr = ownGroup()
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("starting %s: %w", c.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return exitCode(cmd, err)
	case <-ctx.Done():
	}
	terminate(cmd.Process, !onTerminal)
	timer := time.NewTimer(endLimit)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		_ = cmd.Process.Kill()
		<-ended
	}
	if !onTerminal {
		killGroup(cmd.Process)
	}
	return 0, context.Cause(ctx)
}

// exitCode is that of a command that has ended.
func exitCode(cmd *exec.Cmd, err error) (int, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("running %s: %w", cmd.Path, err)
	}
	if signal, killed := endedBy(cmd.ProcessState); killed {
		return 128 + signal, nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
