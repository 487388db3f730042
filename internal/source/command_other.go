//go:build !unix

package source

import (
	"os"
	"syscall"
)

// Where there are no process groups, only the command itself can be ended.

func ownGroup() *syscall.SysProcAttr { return nil }

func interruptGroup(leader *os.Process) error { return leader.Kill() }

func killGroup(*os.Process) {}
