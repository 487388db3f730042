package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/magefile/mage/mage"

	"ambientlab/internal/filelock"
	"ambientlab/internal/mage/listing"
)

// generated is the file that Mage generates next to the magefile.
const generated = "mage_output_file.go"

// Variables by which this program tells itself, as Mage's Go command, what to do.
const (
	goVariable      = "AMBIENTLAB_MAGE_GO"      // the Go command that is meant
	dirVariable     = "AMBIENTLAB_MAGE_DIR"     // where the magefile is
	overlayVariable = "AMBIENTLAB_MAGE_OVERLAY" // the file that adds the generated file to that directory
)

// compiler makes a program of the magefile in dir.
type compiler struct {
	inv mage.Invocation
	dir string
	// list says that a start without options is to know next time what the program was compiled from.
	list bool
}

// compile compiles the magefile to out. Mage works in a directory of its own, so that its generated file is seen by no
// other run; the Go command sees it where Mage would have put it (https://pkg.go.dev/cmd/go, -overlay).
func (c compiler) compile(out string) (code int) {
	scratch, err := c.scratch()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // the next compilation removes what is left
	return c.compileIn(scratch, out)
}

func (c compiler) compileIn(scratch, out string) int {
	files, err := mage.Magefiles(c.dir, c.inv.GOOS, c.inv.GOARCH, false)
	if err != nil {
		return fail(fmt.Errorf("determining list of magefiles: %w", err))
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(scratch, filepath.Base(file)), content, 0o600)
		}
		if err != nil {
			return fail(fmt.Errorf("copying the magefile: %w", err))
		}
	}
	overlay := filepath.Join(scratch, "overlay.json")
	content, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(c.dir, generated): filepath.Join(scratch, generated)},
	})
	if err == nil {
		err = os.WriteFile(overlay, content, 0o600)
	}
	self, errSelf := os.Executable()
	if err := errors.Join(err, errSelf); err != nil {
		return fail(err)
	}
	variables := map[string]string{goVariable: c.inv.GoCmd, dirVariable: c.dir, overlayVariable: overlay}
	for name, value := range variables {
		if err := os.Setenv(name, value); err != nil {
			return fail(err)
		}
		defer func() { _ = os.Unsetenv(name) }()
	}
	inv := c.inv
	inv.Dir, inv.WorkDir, inv.GoCmd, inv.CompileOut, inv.Force = scratch, scratch, self, out, true
	return mage.Invoke(inv)
}

// current gives a program that was compiled from the inputs as they are, and compiles it where there is none.
func (c compiler) current() (program string, code int) {
	key, in, known := c.key()
	if program = c.program(key); known && !c.inv.Force && use(program) {
		c.keepListing(in, program)
		return program, 0
	}
	lock, err := c.lock()
	if err != nil {
		return "", fail(err)
	}
	defer func() { _ = lock.Unlock() }() // it ends with this process in any case
	for {
		key, _, known := c.key()
		if program = c.program(key); known && !c.inv.Force && use(program) {
			return program, 0 // another run has compiled it
		}
		if code := c.store(program); code != 0 {
			return "", code
		}
		// A file that was edited meanwhile may be in the program or not.
		if after, in, _ := c.key(); after == key {
			c.keepListing(in, program)
			return program, 0
		}
	}
}

// key names the program by its inputs. Where they are not all known, it is the same for each program of the directory.
func (c compiler) key() (key string, in inputs, known bool) {
	key, in, err := fingerprint(c.inv.GoCmd, c.dir)
	if err != nil {
		key = c.dir
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q %t", key, c.inv.Ldflags, c.inv.Multiline))
	return fmt.Sprintf("%x", sum), in, err == nil
}

// keepListing keeps what a program was compiled from, if that can be compared later. Otherwise the next start reads the
// files again.
func (c compiler) keepListing(in inputs, program string) {
	if !c.list || !in.comparable {
		return
	}
	_ = listing.Listing{Program: program, Settings: in.settings, States: in.states}.Write(c.dir)
}

// kept is how many compiled programs stay: those that were used last, of all checkouts.
const kept = 4

const prefix = "ambientlab-"

func (c compiler) program(key string) string {
	name := filepath.Join(c.inv.CacheDir, prefix+key)
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return name
}

// use tells whether there is such a program, and notes that it is used.
func use(program string) bool {
	now := time.Now()
	_ = os.Chtimes(program, now, now) // a cache that cannot be written is good enough
	return isFile(program)
}

// store compiles a program, and removes those that were used least recently.
func (c compiler) store(program string) (code int) {
	scratch, err := c.scratch()
	if err != nil {
		return fail(err)
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	// Mage names the program after its file in what the program prints.
	out := filepath.Join(scratch, "mage")
	// The Go command links nothing where the file is what it would link.
	if programs := c.programs(); len(programs) > 0 {
		_ = os.Link(programs[0].name, out)
	}
	if code := c.compileIn(scratch, out); code != 0 {
		return code
	}
	if err := os.Rename(out, program); err != nil {
		return fail(err)
	}
	use(program)
	for _, all := range [][]cached{c.programs(), c.cached(listing.Prefix)} {
		for _, old := range all[min(kept, len(all)):] {
			_ = os.Remove(old.name)
		}
	}
	return 0
}

type cached struct {
	name string
	used time.Time
}

// programs lists the programs that are there, the one that was used last first.
func (c compiler) programs() []cached { return c.cached(prefix) }

func (c compiler) cached(prefix string) []cached {
	names, _ := filepath.Glob(filepath.Join(c.inv.CacheDir, prefix+"*"))
	var all []cached
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && info.Mode().IsRegular() && !strings.HasSuffix(name, lockSuffix) {
			all = append(all, cached{name, info.ModTime()})
		}
	}
	slices.SortFunc(
		all, func(a, b cached) int { return cmp.Or(b.used.Compare(a.used), strings.Compare(a.name, b.name)) },
	)
	return all
}

const scratchPrefix = "ambientlab-build-"

// scratch makes a directory for one compilation, and removes those that killed compilations left.
func (c compiler) scratch() (string, error) {
	if err := os.MkdirAll(c.inv.CacheDir, 0o755); err != nil {
		return "", err
	}
	names, _ := filepath.Glob(filepath.Join(c.inv.CacheDir, scratchPrefix+"*"))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(name)
		}
	}
	return os.MkdirTemp(c.inv.CacheDir, scratchPrefix)
}

const lockSuffix = ".lock"

// lock makes runs in the same directory compile one after the other.
func (c compiler) lock() (*filelock.Lock, error) {
	name := fmt.Sprintf("%s%x%s", prefix, sha256.Sum256([]byte(c.dir)), lockSuffix)
	return filelock.Wait(context.Background(), filepath.Join(c.inv.CacheDir, name), func() {
		if os.Getenv("SM_OUTPUT") != "json" {
			fmt.Fprintln(c.inv.Stderr, "Waiting for another run that compiles the lab.")
		}
	})
}
