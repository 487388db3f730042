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
	"strings"

	"ambientlab/internal/filelock"
)

// file is an open file of a bundle.
type file interface {
	io.ReadCloser
	io.ReaderAt
}

// store is where the files of a bundle are read from. Names are slash-separated and
// relative to the layout's root. A missing file is fs.ErrNotExist.
type store interface {
	open(name string) (file, error)
	size(name string) (int64, error)
	// list gives every regular file's name.
	list() ([]string, error)
	close() error
}

// dirStore is a bundle as a folder. os.Root keeps symbolic links in a bundle from
// leading out of it. While it is open, its folder of blobs is locked for reading, so
// that a writer which finishes a new bundle there does not remove the blobs of this one.
type dirStore struct {
	root *os.Root
	held *filelock.Lock
}

// openDir opens a folder. That it cannot be locked, as on some network file systems, or
// has no blobs, is no reason not to read it.
func openDir(dir string) (dirStore, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return dirStore{}, err
	}
	s := dirStore{root: root}
	if held, err := filelock.TryShared(filepath.Join(dir, filepath.FromSlash(blobDir))); err == nil {
		s.held = held
	}
	return s, nil
}

func (s dirStore) open(name string) (file, error) {
	f, err := s.root.Open(name)
	if err != nil { // not f: a nil *os.File in the interface would not be nil
		return nil, err
	}
	return f, nil
}

func (s dirStore) size(name string) (int64, error) {
	info, err := s.root.Stat(name)
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a file", name)
	}
	return info.Size(), nil
}

func (s dirStore) list() ([]string, error) {
	var names []string
	err := fs.WalkDir(s.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	return names, err
}

func (s dirStore) close() error {
	if s.held == nil {
		return s.root.Close()
	}
	return errors.Join(s.held.Unlock(), s.root.Close())
}

// tarStore is a bundle as a .tar. Its files are read where they lie in the archive.
type tarStore struct {
	archive *os.File
	members map[string]section
	names   []string
}

type section struct{ offset, size int64 }

// errCompressed is for an archive that would have to be unpacked to be read.
var errCompressed = errors.New("the archive is compressed; decompress it first, its layers already are compressed")

// errCut is for an archive that ends early.
var errCut = errors.New("the archive is cut short")

// openTar finds the files of an archive, reading headers only. It takes over f.
func openTar(f *os.File) (*tarStore, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err == nil && isCompressed(magic) {
		return nil, errCompressed
	}
	s := &tarStore{archive: f, members: map[string]section{}}
	reader := tar.NewReader(f)
	for first := true; ; first = false {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
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
		// The reader takes whole headers and nothing more from f, so this is where the
		// member's data starts.
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if offset+header.Size > info.Size() {
			return nil, fmt.Errorf("%w inside %s", errCut, header.Name)
		}
		name := path.Clean(header.Name)
		s.members[name] = section{offset: offset, size: header.Size}
		s.names = append(s.names, name)
	}
}

func isCompressed(magic [4]byte) bool {
	return strings.HasPrefix(string(magic[:]), "\x1f\x8b") || magic == [4]byte{0x28, 0xb5, 0x2f, 0xfd}
}

func (s *tarStore) open(name string) (file, error) {
	m, ok := s.members[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return member{io.NewSectionReader(s.archive, m.offset, m.size)}, nil
}

func (s *tarStore) size(name string) (int64, error) {
	m, ok := s.members[name]
	if !ok {
		return 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return m.size, nil
}

func (s *tarStore) list() ([]string, error) { return s.names, nil }
func (s *tarStore) close() error            { return s.archive.Close() }

// member is one file of an archive; the archive stays open when it is closed.
type member struct{ *io.SectionReader }

func (member) Close() error { return nil }

// readDocument reads a small file whole.
func readDocument(s store, name string) ([]byte, error) {
	f, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("%s is larger than the %d bytes that such a file can have", name, maxDocument)
	}
	return raw, nil
}
