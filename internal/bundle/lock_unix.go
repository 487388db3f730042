//go:build unix

package bundle

import (
	"errors"
	"os"
	"syscall"
)

// shareFile locks for reading, without waiting. Any number can, while nobody has locked.
func shareFile(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
}

// lockFile locks without waiting. The kernel frees the lock with the process.
func lockFile(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errLocked
	}
	return err
}
