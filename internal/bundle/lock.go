package bundle

import (
	"errors"
	"fmt"
	"os"
)

// errLocked says that another process holds the lock.
var errLocked = errors.New("locked by another process")

// lock is a file held open and locked. A lock whose process died is free.
type lock struct{ file *os.File }

// acquire makes and locks the file, or takes over one that a dead process left.
func acquire(name string) (*lock, error) {
	for {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		if err := lockFile(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		same, err := isNamed(f, name)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if same {
			return &lock{file: f}, nil
		}
		// Its holder removed the file between our open and our lock: this lock guards nothing.
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

func isNamed(f *os.File, name string) (bool, error) {
	held, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return os.SameFile(held, now), nil
}

// release gives the lock up and leaves the file.
func (l *lock) release() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// remove removes the file, then gives the lock up.
func (l *lock) remove() error {
	if l.file == nil {
		return fmt.Errorf("the lock is already given up")
	}
	return errors.Join(os.Remove(l.file.Name()), l.release())
}
