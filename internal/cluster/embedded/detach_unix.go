//go:build unix

package embedded

import (
	"os"
	"strconv"
	"syscall"
)

// detached starts a process in a session of its own, so that neither Ctrl-C nor the end of the terminal reaches it.
func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// keepInherited keeps from programs that are started what this program has inherited, such as the lock file of a shell
// or the pipes of make: a process of the lab lives on, and would hold the lock. What Go opens is kept from them anyway.
func keepInherited() error {
	const firstInherited = 3 // standard input, output and error come before
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		return err
	}
	for _, entry := range open {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= firstInherited {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
