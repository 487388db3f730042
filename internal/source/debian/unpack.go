package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"ambientlab/internal/command"
	"ambientlab/internal/source/layer"
)

// merged are the folders that are links into /usr on every Debian since bookworm, while packages may still
// name their files by the old way.
var merged = []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"}

// left out of layers: what only a reader at a terminal of the image could use. Licences stay.
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
		if err := w.add(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: "usr/" + name, Mode: 0o777}, nil); err != nil {
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

// merger writes one tar of many.
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
	// Where scanners of images without dpkg look for packages.
	status := fmt.Appendf(nil, "%sStatus: install ok installed\n", control)
	if err := m.add(&tar.Header{
		Name: "var/lib/dpkg/status.d/" + p.Name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(status)),
	}, bytes.NewReader(status)); err != nil {
		return err
	}
	files, sink := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := command.Run(ctx, command.Command{Name: "dpkg-deb", Args: []string{"--fsys-tarfile", p.File}, Stdout: sink})
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

// verify compares the file with the checksum of the signed lists: it may have lain in the cache for long.
func (p Package) verify() error {
	f, err := os.Open(p.File)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("%s has the checksum %s, not %s as Debian's lists say; remove it and try again", p.File, got, p.SHA256)
	}
	return nil
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

// add writes one entry under its name in a merged-/usr system, with nothing in it that a build could change.
func (m *merger) add(h *tar.Header, content io.Reader) error {
	name := usrMerged(h.Name)
	if name == "" || m.seen[name] || isDocumentation(name) {
		return nil
	}
	if h.Typeflag == tar.TypeDir && isMerged(name) {
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
		out.Linkname = usrMerged(h.Linkname)
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

func usrMerged(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, dir := range merged {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

func isMerged(name string) bool {
	for _, dir := range merged {
		if name == dir {
			return true
		}
	}
	return false
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
