package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/command"
	"ambientlab/internal/source/layer"
)

// merged are the folders that are links into /usr on every Debian since bookworm. Packages can still have files with
// the old paths.
var merged = []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"}

// documentation is left out of layers, except for licences.
var documentation = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/",
	"usr/share/bash-completion/", "usr/share/bug/",
}

// write writes the files of the packages.
func write(ctx context.Context, out *tar.Writer, packages []Package, arch string) error {
	w := &merger{tar: out, seen: map[string]bool{}}
	for _, name := range merged {
		if name == "lib64" && arch != "amd64" {
			continue
		}
		if name == "lib32" || name == "libx32" {
			continue
		}
		if err := w.add(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "usr/" + name, Mode: 0o777},
			nil); err != nil {
			return err
		}
	}
	for _, dir := range []string{"var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/status.d"} {
		if err := w.add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil); err != nil {
			return err
		}
	}
	for _, p := range packages {
		if err := w.addPackage(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	return nil
}

// merger merges tars into one.
type merger struct {
	tar  *tar.Writer
	seen map[string]bool
}

func (m *merger) addPackage(ctx context.Context, p Package) error {
	if err := p.verify(); err != nil {
		return err
	}
	control, err := command.Run(ctx, command.Command{Name: "dpkg-deb", Args: []string{"--field", p.File}})
	if err != nil {
		return err
	}
	// Scanners look here for the packages of an image without dpkg.
	status := fmt.Appendf(nil, "%sStatus: install ok installed\n", control)
	if err := m.add(&tar.Header{
		Name: "var/lib/dpkg/status.d/" + p.Name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(status)),
	}, bytes.NewReader(status)); err != nil {
		return err
	}
	files, sink := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := command.Run(ctx,
			command.Command{Name: "dpkg-deb", Args: []string{"--fsys-tarfile", p.File}, Stdout: sink})
		sink.CloseWithError(err)
		ended <- err
	}()
	err = m.addTar(tar.NewReader(files))
	if err == nil {
		// dpkg-deb fails unless the padding at the end of the archive is read.
		_, err = io.Copy(io.Discard, files)
	}
	files.CloseWithError(err)
	return errors.Join(err, <-ended)
}

// verify compares the file, which can have been in the cache for long, with the checksum of the signed lists.
func (p Package) verify() error {
	f, err := os.Open(p.File)
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := v1.SHA256(f)
	if err == nil && got.Hex != p.SHA256 {
		err = fmt.Errorf("%s has the checksum %s, and Debian's lists say %s; remove the file and try again", p.File,
			got.Hex, p.SHA256)
	}
	return err
}

func (m *merger) addTar(files *tar.Reader) error {
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := m.add(h, files); err != nil {
			return err
		}
	}
}

// add writes one entry under its path in a merged-/usr system, without its time and the names of its owners.
func (m *merger) add(h *tar.Header, content io.Reader) error {
	name := UsrMerged(h.Name)
	if name == "" || m.seen[name] || isDocumentation(name) {
		return nil
	}
	if h.Typeflag == tar.TypeDir && slices.Contains(merged, name) {
		return nil
	}
	m.seen[name] = true
	out := &tar.Header{
		Name: name, Typeflag: h.Typeflag, Mode: h.Mode, Uid: h.Uid, Gid: h.Gid, Size: h.Size,
		Linkname: h.Linkname, Devmajor: h.Devmajor, Devminor: h.Devminor, ModTime: layer.Epoch, Format: tar.FormatPAX,
	}
	if h.Typeflag == tar.TypeDir {
		out.Name += "/"
	}
	if h.Typeflag == tar.TypeLink {
		out.Linkname = UsrMerged(h.Linkname)
	}
	if err := m.tar.WriteHeader(out); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if content == nil || h.Size == 0 {
		return nil
	}
	if _, err := io.Copy(m.tar, content); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// UsrMerged is the path of a file on a Debian whose /bin, /lib and /sbin are links into /usr. It is relative to the
// root folder.
func UsrMerged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, dir := range merged {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

func isDocumentation(name string) bool {
	if strings.HasPrefix(name, "usr/share/doc/") && path.Base(name) == "copyright" {
		return false
	}
	for _, dir := range documentation {
		if strings.HasPrefix(name+"/", dir) && name+"/" != dir {
			return true
		}
	}
	return false
}
