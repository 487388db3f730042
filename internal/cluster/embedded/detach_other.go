//go:build !unix

package embedded

import "syscall"

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

// keepInherited has nothing to do: a program inherits only what it is given.
func keepInherited() error { return nil }
