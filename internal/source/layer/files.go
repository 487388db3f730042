package layer

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Epoch is the time of every file and image: a real time would differ from build to build.
var Epoch = time.Unix(0, 0).UTC()

// File is one file, folder or link of a layer.
type File struct {
	// Path is the path in the image, with or without a leading slash.
	Path string
	// Mode holds the permission bits. 0 means 0o644 for a file and 0o755 for a folder.
	Mode int64
	UID  int
	GID  int
	// Source is the file on disk that holds the content.
	Source string
	// Data is the content if there is no Source.
	Data []byte
	// Link makes it a symbolic link to this target.
	Link string
	// Dir makes it a folder.
	Dir bool
}

// complete returns the files and the folders above them in the order of their paths, which are relative.
func complete(files []File) ([]File, error) {
	all := map[string]File{}
	for _, f := range files {
		f.Path = strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		if f.Path == "" {
			return nil, errors.New("a file without a path")
		}
		if _, twice := all[f.Path]; twice && !f.Dir {
			return nil, fmt.Errorf("%s occurs twice", f.Path)
		}
		all[f.Path] = f
	}
	for name := range all {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	var out []File
	for _, f := range all {
		switch {
		case f.Link != "":
			f.Mode = 0o777
		case f.Mode == 0 && f.Dir:
			f.Mode = 0o755
		case f.Mode == 0:
			f.Mode = 0o644
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// Fingerprint is a hash of what the files are and of their content.
func Fingerprint(files []File) (string, error) {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%q %o %d %d %q %t %d\n", f.Path, f.Mode, f.UID, f.GID, f.Link, f.Dir, len(f.Data))
		h.Write(f.Data)
		if f.Source != "" {
			if err := copyFile(h, f.Source); err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func writeFiles(t *tar.Writer, files []File) error {
	for _, f := range files {
		if err := writeFile(t, f); err != nil {
			return fmt.Errorf("adding %s: %w", f.Path, err)
		}
	}
	return nil
}

func writeFile(t *tar.Writer, f File) error {
	h := &tar.Header{
		Name: f.Path, Mode: f.Mode, Uid: f.UID, Gid: f.GID, ModTime: Epoch, Typeflag: tar.TypeReg,
		Format: tar.FormatPAX,
	}
	switch {
	case f.Dir:
		h.Name, h.Typeflag = f.Path+"/", tar.TypeDir
	case f.Link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case f.Source != "":
		info, err := os.Stat(f.Source)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return &fs.PathError{Op: "read", Path: f.Source, Err: fs.ErrInvalid}
		}
		h.Size = info.Size()
	default:
		h.Size = int64(len(f.Data))
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	if f.Source != "" {
		return copyFile(t, f.Source)
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := t.Write(f.Data)
	return err
}

func copyFile(to io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(to, f)
	return err
}
