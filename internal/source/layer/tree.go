package layer

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// inode identifies a file on disk by its number.
type inode struct{ dev, ino uint64 }

// WriteTree adds a folder below prefix, with owners and modes as they are. It leaves out device nodes and sockets,
// because the container runtime provides /dev. Hard links stay hard links.
func WriteTree(t *tar.Writer, root, prefix string) error {
	linked := map[inode]string{}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Join(prefix, rel))
		info, err := d.Info()
		if err != nil {
			return err
		}
		if name == "." || !(info.IsDir() || info.Mode().IsRegular() || info.Mode()&fs.ModeSymlink != 0) {
			return nil
		}
		link := ""
		if info.Mode()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		h.Name, h.ModTime, h.AccessTime, h.ChangeTime = name, Epoch, time.Time{}, time.Time{}
		h.Uname, h.Gname, h.Format = "", "", tar.FormatUnknown
		if info.IsDir() {
			h.Name += "/"
		}
		if id, several := inodeOf(info); several && info.Mode().IsRegular() {
			if first, seen := linked[id]; seen {
				h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			} else {
				linked[id] = name
			}
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		if err := copyFile(t, path); err != nil {
			return fmt.Errorf("adding %s: %w", name, err)
		}
		return nil
	})
}
