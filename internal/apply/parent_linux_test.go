package apply

import "syscall"

// withParent ends a process with the test that started it, however the test ends.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
