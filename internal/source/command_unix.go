//go:build unix

package source

import (
	"errors"
	"os"
	"syscall"
)

// ownGroup puts a command into a process group of its own, so that all that it starts can be ended with it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func interruptGroup(leader *os.Process) error {
	err := syscall.Kill(-leader.Pid, syscall.SIGINT)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// killGroup ends what is left of a command's group. The group's ID is given to no other while any of it lives.
func killGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGKILL) }
