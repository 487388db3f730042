// Command mage is Mage for this project; `go tool mage` runs it (see the tool directive in go.mod). It does what an
// installed mage does, with these differences:
//
//   - The lab is compiled with the settings of the Makefile, so that nothing is compiled twice.
//   - A compilation that takes long reports its progress.
//   - A compiled lab that is current is run at once: a hash of all inputs decides that, not the Go command.
//   - SIGTERM and SIGHUP are passed on to the compiled lab, which ends in an orderly way and whose exit code arrives.
//   - Several runs in one checkout do not disturb each other: no file is written into it, and one of them compiles.
//
// Mage's own Main and Invoke are made to be called from other programs (magefile/mage, mage/main.go).
package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/magefile/mage/mage"

	"ambientlab/internal/mage/starter"
)

// buildSettings are those of the Makefile, for an environment that does not set them.
var buildSettings = map[string]string{
	"CGO_ENABLED": "0",
	"GOFLAGS":     "-trimpath -tags=disable_pgv -gcflags=all=-dwarf=false",
}

func main() {
	if starter.IsParent(os.Getenv, os.Getppid) { // this program is Mage's Go command as well
		os.Exit(runGo(os.Args[1:], os.Stderr))
	}
	for name, value := range buildSettings {
		if _, given := os.LookupEnv(name); !given {
			_ = os.Setenv(name, value)
		}
	}
	// The compiled lab looks at the mark too: it names `go tool mage` in the commands that it prints.
	_ = starter.Mark()
	os.Exit(run(os.Args[1:]))
}

// run does what Mage's Main does. Only what compiles the magefile differs.
func run(args []string) int {
	inv, command, err := mage.Parse(os.Stderr, io.Discard, args)
	compiles := command == mage.CompileStatic || command == mage.None && !inv.List && !inv.Help && !inv.Autocomplete
	if err != nil || !compiles || inv.Keep {
		return mage.Main()
	}
	inv.Stdin, inv.Stdout, inv.Stderr = os.Stdin, os.Stdout, os.Stderr
	dir, err := filepath.Abs(inv.Dir)
	if err != nil {
		return fail(err)
	}
	if info, err := os.Stat(filepath.Join(dir, mage.MagefilesDirName)); err == nil && info.IsDir() {
		return mage.Main() // it has rules of its own for such a directory
	}
	c := compiler{inv: inv, dir: dir}
	if command == mage.CompileStatic {
		out := inv.CompileOut
		if !filepath.IsAbs(out) {
			out = filepath.Join(dir, out)
		}
		return c.compile(out)
	}
	program, code := c.current()
	if code != 0 {
		return code
	}
	if inv.Dir == "" {
		inv.Dir = "."
	}
	if inv.WorkDir == "" {
		inv.WorkDir = inv.Dir
	}
	return runCompiled(inv, program)
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "Error:", err)
	return 1
}
