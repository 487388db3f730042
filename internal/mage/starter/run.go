package starter

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Run runs a program with this process's standard streams, and gives its exit code. SIGTERM and SIGHUP are passed on:
// otherwise this process would end on them, and leave the program behind without its parent. SIGINT is not passed on,
// since a terminal sends it to the program too.
func Run(command *exec.Cmd) (code int, err error) {
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup makes it
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	if err := command.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case err := <-ended:
			if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
				return exit.ExitCode(), nil
			}
			return 0, err
		case got := <-signals:
			if got != os.Interrupt {
				_ = command.Process.Signal(got) // it may have ended just now
			}
		}
	}
}
