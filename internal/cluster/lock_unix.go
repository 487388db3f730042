//go:build unix && !solaris && !aix

package cluster

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the lock on an open file, or says that another process has it.
func tryLock(file *os.File) (bool, error) {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}
