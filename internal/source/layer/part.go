package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// part is one entry of the tar: its header as bytes, then its content, then padding to whole blocks.
type part struct {
	header []byte
	source string
	data   []byte
	size   int64
}

func newPart(name string, f File) (part, error) {
	h := &tar.Header{
		Name: name, Mode: f.Mode, Uid: f.UID, Gid: f.GID, ModTime: Epoch, Typeflag: tar.TypeReg,
		Format: tar.FormatPAX,
	}
	p := part{}
	switch {
	case f.Dir:
		h.Name, h.Typeflag = name+"/", tar.TypeDir
		if h.Mode == 0 {
			h.Mode = 0o755
		}
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Source != "":
		info, err := os.Stat(f.Source)
		if err != nil {
			return part{}, err
		}
		if !info.Mode().IsRegular() {
			return part{}, &fs.PathError{Op: "read", Path: f.Source, Err: fs.ErrInvalid}
		}
		h.Size, p.source, p.size = info.Size(), f.Source, info.Size()
	default:
		h.Size, p.data, p.size = int64(len(f.Data)), f.Data, int64(len(f.Data))
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	var header bytes.Buffer
	if err := tar.NewWriter(&header).WriteHeader(h); err != nil {
		return part{}, err
	}
	p.header = header.Bytes()
	return p, nil
}

func (p part) padding() int64 { return -p.size & 511 }

// lazyFile opens its file at the first read and closes it at the end. A file whose length is no longer what
// the header before it says is an error: the tar would be garbage from there on.
type lazyFile struct {
	path string
	left int64
	file *os.File
}

func (l *lazyFile) Read(b []byte) (int, error) {
	if l.left == 0 {
		return 0, l.finish()
	}
	if l.file == nil {
		f, err := os.Open(l.path)
		if err != nil {
			return 0, err
		}
		l.file = f
	}
	if int64(len(b)) > l.left {
		b = b[:l.left]
	}
	n, err := l.file.Read(b)
	l.left -= int64(n)
	if err == io.EOF && l.left > 0 {
		return n, fmt.Errorf("%s was changed while it was read: %d bytes are missing", l.path, l.left)
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (l *lazyFile) finish() error {
	if err := l.Close(); err != nil {
		return err
	}
	return io.EOF
}

// Close closes the file where it is still open, that is where reading stopped in the middle of it.
func (l *lazyFile) Close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// reader reads parts one after the other.
type reader struct {
	io.Reader
	files []*lazyFile
}

func newReader(parts []part) *reader {
	r := &reader{}
	var all []io.Reader
	for _, p := range parts {
		all = append(all, bytes.NewReader(p.header))
		if p.source == "" {
			all = append(all, bytes.NewReader(p.data))
		} else {
			f := &lazyFile{path: p.source, left: p.size}
			r.files = append(r.files, f)
			all = append(all, f)
		}
		all = append(all, bytes.NewReader(make([]byte, p.padding())))
	}
	r.Reader = io.MultiReader(all...)
	return r
}

// Close implements io.Closer.
func (r *reader) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
