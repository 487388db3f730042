//go:build unix && !solaris && !aix

package main

import (
	"os"
	"syscall"
)

// lockFile waits for the lock on an open file.
func lockFile(file *os.File) error { return syscall.Flock(int(file.Fd()), syscall.LOCK_EX) }
