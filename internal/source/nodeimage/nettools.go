package nodeimage

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"ambientlab/internal/source/debian"
	"ambientlab/internal/source/layer"
)

// netTools are the files of Debian's iptables, nft and conntrack, which kube-proxy calls, with the libraries that they
// need. The image's iptables is always the nft kind. If the node uses the legacy kind, the kernel has rules of both.
func netTools(rootfs string) ([]layer.File, error) {
	c := closure{rootfs: rootfs, have: map[string]bool{}}
	for _, program := range []string{"usr/sbin/xtables-nft-multi", "usr/sbin/nft", "usr/sbin/conntrack"} {
		if err := c.add(program); err != nil {
			return nil, err
		}
	}
	extensions, err := filepath.Glob(filepath.Join(rootfs, "usr/lib/*/xtables/*.so"))
	if err != nil || len(extensions) == 0 {
		return nil, errors.Join(errors.New("the root file system has no iptables extensions"), err)
	}
	for _, extension := range extensions {
		rel, err := filepath.Rel(rootfs, extension)
		if err != nil {
			return nil, err
		}
		if err := c.add(filepath.ToSlash(rel)); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, form := range []string{"", "-save", "-restore"} {
			c.entries = append(c.entries, layer.File{Path: "usr/sbin/" + name + form, Link: "xtables-nft-multi"})
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		c.entries = append(c.entries, layer.File{Path: dir, Link: "usr/" + dir})
	}
	c.entries = append(c.entries, layer.File{Path: "run", Mode: 0o755, Dir: true}) // for xtables.lock
	return c.entries, nil
}

// closure collects programs and the shared libraries that they load, directly and indirectly.
type closure struct {
	rootfs  string
	have    map[string]bool
	entries []layer.File
}

func (c *closure) add(name string) error {
	if c.have[name] {
		return nil
	}
	c.have[name] = true
	// The name of a library is a link to its version. The content is stored under the name that programs load.
	source, err := c.resolve(name)
	if err != nil {
		return fmt.Errorf("looking for %s in the root file system: %w", name, err)
	}
	c.entries = append(c.entries, layer.File{Path: name, Mode: 0o755, Source: source})
	f, err := elf.Open(source)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	defer f.Close()
	if interpreter := f.Section(".interp"); interpreter != nil {
		raw, err := interpreter.Data()
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if err := c.add(debian.UsrMerged(strings.TrimRight(string(raw), "\x00"))); err != nil {
			return err
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("reading what %s loads: %w", name, err)
	}
	for _, library := range libraries {
		at, err := c.find(library)
		if err != nil {
			return fmt.Errorf("%s loads %s: %w", name, library, err)
		}
		if err := c.add(at); err != nil {
			return err
		}
	}
	return nil
}

// find finds a library where Debian's loader finds it.
func (c *closure) find(library string) (string, error) {
	for _, pattern := range []string{"usr/lib/*-linux-gnu/", "usr/lib/", "usr/lib64/"} {
		found, err := filepath.Glob(filepath.Join(c.rootfs, pattern, library))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			rel, err := filepath.Rel(c.rootfs, found[0])
			return filepath.ToSlash(rel), err
		}
	}
	return "", fs.ErrNotExist
}

// resolve follows symbolic links inside the root file system. An absolute link starts at its root, not at the host's.
func (c *closure) resolve(name string) (string, error) {
	for range 8 {
		full := filepath.Join(c.rootfs, filepath.FromSlash(name))
		target, err := os.Readlink(full)
		if err != nil {
			_, err := os.Stat(full)
			return full, err
		}
		if path.IsAbs(target) {
			name = debian.UsrMerged(target)
		} else {
			name = debian.UsrMerged("/" + path.Join(path.Dir(name), target))
		}
	}
	return "", errors.New("too many symbolic links")
}
