package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"ambientlab/internal/filelock"
)

// files are the files of a bundle, in a folder or in a .tar.
type files interface {
	fs.FS
	// names lists the regular files.
	names() ([]string, error)
	Close() error
}

// folder is a bundle in a folder. os.Root keeps symbolic links in a bundle from leading out of it. While the folder is
// open, its blobs are locked for reading, so that a writer that finishes a new bundle there does not remove them.
type folder struct {
	fs.FS
	root *os.Root
	lock *filelock.Lock // nil if the folder has no blobs, or its file system no locks
}

func openFolder(dir string) (folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return folder{}, err
	}
	f := folder{FS: root.FS(), root: root}
	if lock, err := filelock.TryShared(filepath.Join(dir, filepath.FromSlash(blobDir))); err == nil {
		f.lock = lock
	}
	return f, nil
}

func (f folder) names() ([]string, error) { return regularFiles(f) }

func regularFiles(fsys fs.FS) ([]string, error) {
	var names []string
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

func (f folder) Close() error {
	if f.lock == nil {
		return f.root.Close()
	}
	return errors.Join(f.lock.Unlock(), f.root.Close())
}

// archive is a bundle in a .tar. Its files are read in place.
type archive struct {
	file    *os.File
	members map[string]member
}

// member is a file of an archive. Closing it leaves the archive open.
type member struct {
	*io.SectionReader
	header *tar.Header
}

func (m member) Stat() (fs.FileInfo, error) { return m.header.FileInfo(), nil }
func (m member) Close() error               { return nil }

// errCompressed says that an archive is compressed: its files cannot be read in place.
var errCompressed = errors.New("the archive is compressed; decompress it first (its layers are compressed already)")

// errCut says that an archive ends early.
var errCut = errors.New("the archive is truncated")

// openArchive finds the files of an archive and reads their headers only. If it succeeds, Close closes file.
func openArchive(file *os.File) (*archive, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var magic [4]byte
	if _, err := file.ReadAt(magic[:], 0); err == nil && isCompressed(magic) {
		return nil, errCompressed
	}
	a := &archive{file: file, members: map[string]member{}}
	reader := tar.NewReader(file)
	for first := true; ; first = false {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && !first {
			return nil, errCut
		}
		if err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		// The tar reader has read the header and nothing more, so the content starts here.
		offset, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if offset+header.Size > info.Size() {
			return nil, fmt.Errorf("%w inside %s", errCut, header.Name)
		}
		a.members[path.Clean(header.Name)] = member{
			header:        header,
			SectionReader: io.NewSectionReader(file, offset, header.Size),
		}
	}
}

// isCompressed knows the first bytes of gzip and zstd.
func isCompressed(magic [4]byte) bool {
	return strings.HasPrefix(string(magic[:]), "\x1f\x8b") || magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}
}

// Open implements fs.FS. Each caller gets a reader of its own.
func (a *archive) Open(name string) (fs.File, error) {
	m, ok := a.members[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	m.SectionReader = io.NewSectionReader(m.SectionReader, 0, m.Size())
	return m, nil
}

func (a *archive) names() ([]string, error) {
	var names []string
	for name := range a.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (a *archive) Close() error { return a.file.Close() }

// maxDocument bounds what is read into memory as one piece: indexes, manifests and configs.
const maxDocument = 8 << 20

// readDocument reads a small file.
func readDocument(f fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(f, name)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDocument {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxDocument)
	}
	return fs.ReadFile(f, name)
}
