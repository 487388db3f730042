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
