package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/modfile"
	"golang.org/x/sync/errgroup"

	"ambientlab/internal/mage/listing"
)

// errUnknown says that a compiled lab cannot be known to be current from its inputs, so that the Go command has to
// look.
var errUnknown = errors.New("the inputs of the compilation are not all known")

// fingerprint is a hash of everything that decides what the Go command makes of the magefile in dir: the Go command's
// own version and settings, and the content of the module's files. Modules in the module cache do not change; go.mod
// and go.sum say which they are. The error is errUnknown where inputs lie elsewhere, such as those of a workspace.
func fingerprint(goCommand, dir string) (string, inputs, error) {
	in := inputs{
		files: make(map[string][sha256.Size]byte), visited: make(map[string]bool), states: make(map[string]string),
		began: time.Now(), comparable: true,
	}
	root, err := in.moduleRoot(dir)
	if err != nil {
		return "", in, err
	}
	var group errgroup.Group
	var settings string
	group.Go(func() (err error) {
		settings, err = knownSettings(goCommand, dir)
		return err
	})
	group.Go(func() error { return in.addModule(root) })
	if err := group.Wait(); err != nil {
		return "", in, err
	}
	in.settings = settings
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", settings)
	relative, err := filepath.Rel(root, dir)
	if err != nil {
		return "", in, err
	}
	fmt.Fprintf(sum, "%s\n", filepath.ToSlash(relative))
	for _, name := range slices.Sorted(maps.Keys(in.files)) {
		relative, err := filepath.Rel(root, name)
		if err != nil {
			return "", in, err
		}
		fmt.Fprintf(sum, "%q %x\n", filepath.ToSlash(relative), in.files[name])
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), in, nil
}

// moduleRoot is the directory of the go.mod that dir belongs to.
func (in *inputs) moduleRoot(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		in.see(filepath.Join(at, "go.mod"))
		if isFile(filepath.Join(at, "go.mod")) {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%w: there is no go.mod in %s or above it", errUnknown, dir)
		}
	}
}

func isFile(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// knownSettings is listing.Settings where they name no input outside of the module.
func knownSettings(goCommand, dir string) (string, error) {
	settings, err := listing.Settings(goCommand, dir)
	if err != nil {
		return "", fmt.Errorf("%w: %s env: %w", errUnknown, goCommand, err)
	}
	for line := range strings.Lines(settings) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "set ")), "=")
		value = strings.Trim(value, `'"`)
		switch name {
		case "GOWORK":
			if value != "" && value != "off" {
				return "", fmt.Errorf("%w: there is a workspace, %s", errUnknown, value)
			}
		case "GOFLAGS":
			for _, flag := range strings.Fields(value) {
				if namesFile(flag) {
					return "", fmt.Errorf("%w: GOFLAGS has %s", errUnknown, flag)
				}
			}
		}
	}
	return settings, nil
}

// namesFile tells whether a flag of the Go command names a file or a program whose content is an input as well.
func namesFile(flag string) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(flag, "-"), "=")
	return slices.Contains([]string{"C", "modfile", "overlay", "pgo", "pkgdir", "toolexec"}, name)
}

// inputs collects the files that a compilation of a module may read, with the hashes of their content.
type inputs struct {
	files   map[string][sha256.Size]byte
	visited map[string]bool // directories, with symbolic links resolved
	// settings are those of the Go command.
	settings string
	// states has what the file system said, before it was read, of each file and directory on which the inputs depend.
	// comparable says that an input that changes after began cannot have the same state again. One that changed shortly
	// before can, within the granularity of the file system's times.
	states     map[string]string
	began      time.Time
	comparable bool
}

// see notes what the file system says of a file or directory that is about to be read for the first time.
func (in *inputs) see(name string) {
	if _, seen := in.states[name]; seen {
		return
	}
	state, changed, known := listing.State(name)
	in.states[name] = state
	in.comparable = in.comparable && known && changed.Before(in.began.Add(-listing.Granularity))
}

// add adds a file and gives its content.
func (in *inputs) add(name string) ([]byte, error) {
	in.see(name)
	content, err := os.ReadFile(name)
	if err == nil {
		in.files[name] = sha256.Sum256(content)
	}
	return content, err
}

// addModule adds the files of the module in root, and of those that its go.mod replaces others with.
func (in *inputs) addModule(root string) error {
	name := filepath.Join(root, "go.mod")
	content, err := in.add(name)
	if err != nil {
		return err
	}
	file, err := modfile.Parse(name, content, nil)
	if err != nil { // the Go command reports it
		return fmt.Errorf("%w: %w", errUnknown, err)
	}
	roots := []string{root}
	for _, replace := range file.Replace {
		if replace.New.Version != "" {
			continue
		}
		to := filepath.FromSlash(replace.New.Path)
		if !filepath.IsAbs(to) {
			to = filepath.Join(root, to)
		}
		roots = append(roots, to)
	}
	for _, root := range roots {
		for _, name := range []string{"go.mod", "go.sum"} {
			if _, err := in.add(filepath.Join(root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := in.addPackages(root, true); err != nil {
			return err
		}
	}
	return nil
}

// addPackages adds all files, tests excepted, of each directory in the tree that has a Go file, and what these files
// embed. Nested modules are left out: a package of theirs is not part of this module.
func (in *inputs) addPackages(dir string, isRoot bool) error {
	in.see(dir)
	if !isRoot && isFile(filepath.Join(dir, "go.mod")) {
		return nil
	}
	entries, err := in.enter(dir)
	if err != nil {
		return err
	}
	isPackage := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return path.Ext(e.Name()) == ".go" })
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		mode, err := in.modeOf(name, entry)
		switch {
		case err != nil:
			return err
		case mode.IsDir():
			if err := in.addPackages(name, false); err != nil {
				return err
			}
		case mode.IsRegular() && isPackage && !strings.HasSuffix(name, "_test.go"):
			content, err := in.add(name)
			if err != nil {
				return err
			}
			if path.Ext(name) != ".go" {
				continue
			}
			if err := in.addEmbedded(dir, content); err != nil {
				return err
			}
		}
	}
	return nil
}

// enter reads a directory once. It gives nil for one that was read before, and for a repository's own.
func (in *inputs) enter(dir string) ([]fs.DirEntry, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, err
	}
	if in.visited[real] || filepath.Base(real) == ".git" {
		return nil, nil
	}
	in.visited[real] = true
	return os.ReadDir(dir)
}

// modeOf is a file's type, behind a symbolic link too. A link that leads nowhere has none.
func (in *inputs) modeOf(name string, entry fs.DirEntry) (fs.FileMode, error) {
	if entry.Type()&fs.ModeSymlink == 0 {
		return entry.Type(), nil
	}
	in.see(name)
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fs.ModeIrregular, nil
	case err != nil:
		return 0, err
	}
	return info.Mode().Type(), nil
}

var embedDirective = []byte("//go:embed")

// addEmbedded adds the files that a Go file in dir embeds: all that lie where its patterns begin.
func (in *inputs) addEmbedded(dir string, content []byte) error {
	if !bytes.Contains(content, embedDirective) {
		return nil
	}
	for line := range bytes.Lines(content) {
		patterns, found := bytes.CutPrefix(bytes.TrimSpace(line), embedDirective)
		if !found {
			continue
		}
		for _, pattern := range fields(string(patterns)) {
			if err := in.addTree(filepath.Join(dir, fixed(pattern))); err != nil {
				return err
			}
		}
	}
	return nil
}

// fields splits the patterns of a directive; one with blanks is quoted.
func fields(text string) []string {
	var all []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		field, err := strconv.QuotedPrefix(text)
		if err != nil { // not quoted
			end := strings.IndexFunc(text, unicode.IsSpace)
			if end < 0 {
				end = len(text)
			}
			field = text[:end]
			all, text = append(all, field), text[end:]
			continue
		}
		text = text[len(field):]
		if unquoted, err := strconv.Unquote(field); err == nil {
			all = append(all, unquoted)
		}
	}
	return all
}

// fixed is a pattern's path as far as it has no special characters.
func fixed(pattern string) string {
	elements := strings.Split(strings.TrimPrefix(pattern, "all:"), "/")
	if i := slices.IndexFunc(elements, func(e string) bool { return strings.ContainsAny(e, `*?[\`) }); i >= 0 {
		elements = elements[:i]
	}
	return filepath.Join(elements...)
}

// addTree adds a file, or all files of a directory. What does not exist is for the Go command to report.
func (in *inputs) addTree(name string) error {
	in.see(name)
	return filepath.WalkDir(name, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir():
			in.see(name)
		case entry.Type().IsRegular():
			_, err = in.add(name)
		}
		return err
	})
}
