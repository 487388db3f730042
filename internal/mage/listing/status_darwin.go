package listing

import (
	"os"
	"syscall"
	"time"
)

// status gives a file's identity, and when its content or its attributes last changed.
func status(info os.FileInfo) (device, inode int64, changed time.Time, known bool) {
	stat, known := info.Sys().(*syscall.Stat_t)
	if !known {
		return 0, 0, time.Time{}, false
	}
	return int64(stat.Dev), int64(stat.Ino), time.Unix(stat.Ctimespec.Unix()), true
}
