//go:build !unix

package command

import (
	"os"
	"syscall"
)

// Without process groups, only the command itself can be ended.

func ownGroup() *syscall.SysProcAttr { return nil }

func interruptGroup(leader *os.Process) error { return leader.Kill() }

func killGroup(*os.Process) {}

// terminate ends a command: there are no signals that ask it to.
func terminate(leader *os.Process, _ bool) { _ = leader.Kill() }

func endedBy(*os.ProcessState) (signal int, killed bool) { return 0, false }
