package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/magefile/mage/mage"
	"github.com/magefile/mage/sh"
)

// runCompiled does what Mage's RunCompiled does (magefile/mage, mage/main.go), and passes SIGTERM and SIGHUP on: Mage
// itself ends on them, and leaves the compiled program behind without its parent. SIGINT is not passed on, since a
// terminal sends it to the compiled program too.
func runCompiled(inv mage.Invocation, program string) int {
	command := exec.Command(program, inv.Args...)
	command.Stdin, command.Stdout, command.Stderr = inv.Stdin, inv.Stdout, inv.Stderr
	command.Dir = inv.WorkDir
	command.Env = os.Environ()
	for name, set := range map[string]bool{
		"VERBOSE": inv.Verbose, "LIST": inv.List, "HELP": inv.Help, "DEBUG": inv.Debug,
	} {
		if set {
			command.Env = append(command.Env, "MAGEFILE_"+name+"=1")
		}
	}
	if inv.GoCmd != "" {
		command.Env = append(command.Env, "MAGEFILE_GOCMD="+inv.GoCmd)
	}
	if inv.Timeout > 0 {
		command.Env = append(command.Env, "MAGEFILE_TIMEOUT="+inv.Timeout.String())
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // as nohup makes it
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	if err := command.Start(); err != nil {
		return fail(fmt.Errorf("running the compiled magefile: %w", err))
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case err := <-ended:
			return sh.ExitStatus(err)
		case got := <-signals:
			if got != os.Interrupt {
				_ = command.Process.Signal(got) // it may have ended just now
			}
		}
	}
}
