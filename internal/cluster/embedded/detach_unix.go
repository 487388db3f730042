//go:build unix

package embedded

import "syscall"

// detached starts a process in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
