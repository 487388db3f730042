//go:build !unix

package nodeimage

import "io/fs"

// inodeOf knows no inodes here: node images are built on Linux only, elsewhere the package just has to compile.
func inodeOf(fs.FileInfo) (inode, bool) { return inode{}, false }
