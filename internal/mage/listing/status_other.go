//go:build !linux && !darwin

package listing

import (
	"os"
	"time"
)

// status is not known: os.Stat does not tell when a file's attributes last changed.
func status(os.FileInfo) (device, inode int64, changed time.Time, known bool) {
	return 0, 0, time.Time{}, false
}
