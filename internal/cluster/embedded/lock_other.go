//go:build !unix || solaris || aix

package embedded

import (
	"os"
	"syscall"
)

// flock always succeeds: without it, two runs at once on the same lab are the user's to avoid.
func flock(*os.File) (bool, error) { return true, nil }

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
