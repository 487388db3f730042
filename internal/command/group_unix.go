//go:build unix

package command

import (
	"errors"
	"os"
	"syscall"
)

// ownGroup puts a command into a process group of its own, so that the processes that it starts can be ended with it.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func interruptGroup(leader *os.Process) error {
	err := syscall.Kill(-leader.Pid, syscall.SIGINT)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// killGroup kills what is left of the group of a command. The kernel gives the ID of the group to no other process
// while any process of the group lives.
func killGroup(leader *os.Process) { _ = syscall.Kill(-leader.Pid, syscall.SIGKILL) }

// terminate asks a command to end, and the processes of its group with it if it has one of its own.
func terminate(leader *os.Process, group bool) {
	if group {
		_ = syscall.Kill(-leader.Pid, syscall.SIGTERM)
		return
	}
	_ = leader.Signal(syscall.SIGTERM)
}

// endedBy gives the signal that ended a process.
func endedBy(state *os.ProcessState) (signal int, killed bool) {
	status, known := state.Sys().(syscall.WaitStatus)
	if !known || !status.Signaled() {
		return 0, false
	}
	return int(status.Signal()), true
}
