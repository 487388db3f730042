// Package atomicfile writes files so that a reader finds the old content or the new content, and never a part, even
// after a power failure.
//
// No library does this for the lab: github.com/google/renameio does not support Windows, and a writer of
// github.com/moby/sys/atomicwriter cannot be aborted when its input fails.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes content to the file at path, with the given permission bits.
func Write(path string, content []byte, mode fs.FileMode) error {
	return WriteFunc(path, mode, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}

// WriteFunc writes to the file at path what fill writes to a temporary file in the same folder. If fill fails, the file
// at path stays as it was.
func WriteFunc(path string, mode fs.FileMode, fill func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if err := Replace(f, path, mode); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Replace closes f, an open file on the same file system as path, and moves it to path. The content is on disk before
// the file has its new name.
func Replace(f *os.File, path string, mode fs.FileMode) error {
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}
