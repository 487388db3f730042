//go:build unix

package layer

import (
	"io/fs"
	"syscall"
)

// inodeOf gives the file's inode if it has more than one name.
func inodeOf(info fs.FileInfo) (inode, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Nlink < 2 {
		return inode{}, false
	}
	return inode{uint64(stat.Dev), uint64(stat.Ino)}, true
}
