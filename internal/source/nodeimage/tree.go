package nodeimage

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// buildTime is every file's time in every layer, so that the same content gives the same digest.
var buildTime = time.Unix(0, 0)

// entry is one file of a layer. Source wins over Data; a Link makes it a symbolic link.
type entry struct {
	Path   string // in the image, without a leading slash
	Mode   int64
	Source string // a file on disk
	Data   []byte
	Link   string
	Dir    bool
}

// sortEntries puts entries in the order of their paths, parents first, whatever order they were collected in.
func sortEntries(entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
}

// fingerprint hashes what the entries are and hold, for a layer's key.
func fingerprint(entries []entry) (string, error) {
	h := sha256.New()
	for _, e := range entries {
		fmt.Fprintf(h, "%q %o %q %t %d\n", e.Path, e.Mode, e.Link, e.Dir, len(e.Data))
		h.Write(e.Data)
		if e.Source != "" {
			if err := copyFile(h, e.Source); err != nil {
				return "", err
			}
		}
	}
	return hashOf(h).Hex[:24], nil
}

func writeEntries(t *tar.Writer, entries []entry) error {
	for _, e := range entries {
		h := &tar.Header{Name: e.Path, Mode: e.Mode, ModTime: buildTime, Size: int64(len(e.Data)), Typeflag: tar.TypeReg}
		switch {
		case e.Dir:
			h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
		case e.Link != "":
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
		case e.Source != "":
			stat, err := os.Stat(e.Source)
			if err != nil {
				return fmt.Errorf("adding %s: %w", e.Path, err)
			}
			h.Size = stat.Size()
		}
		if err := t.WriteHeader(h); err != nil {
			return fmt.Errorf("adding %s: %w", e.Path, err)
		}
		if e.Source != "" {
			if err := copyFile(t, e.Source); err != nil {
				return fmt.Errorf("adding %s: %w", e.Path, err)
			}
			continue
		}
		if _, err := t.Write(e.Data); err != nil {
			return fmt.Errorf("adding %s: %w", e.Path, err)
		}
	}
	return nil
}

func copyFile(to io.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}

// inode names a file on disk whatever its path.
type inode struct{ dev, ino uint64 }

// writeTree adds a folder with owners and modes as they are, below prefix. Device nodes and sockets are left out: a
// container's /dev is the runtime's. Hard links stay hard links.
func writeTree(t *tar.Writer, root, prefix string) error {
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
		h.Name, h.ModTime, h.AccessTime, h.ChangeTime = name, buildTime, time.Time{}, time.Time{}
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
