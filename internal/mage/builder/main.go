// Command builder compiles the lab where that is needed, runs it, and does everything else that Mage does: it is what
// command mage, which has a description, starts where it cannot run a compiled lab at once.
//
// Mage's own Main and Invoke are made to be called from other programs (magefile/mage, mage/main.go).
package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/magefile/mage/mage"

	"ambientlab/internal/mage/listing"
	"ambientlab/internal/mage/starter"
)

func main() {
	// This program is Mage's Go command as well.
	if os.Getenv(goVariable) != "" && starter.IsParent(os.Getenv, os.Getppid) {
		os.Exit(runGo(os.Args[1:], os.Stderr))
	}
	listing.SetBuildSettings()
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
	c.list = len(args) > 0 && !strings.HasPrefix(args[0], "-")
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

// runCompiled does what Mage's RunCompiled does (magefile/mage, mage/main.go), and passes signals on.
func runCompiled(inv mage.Invocation, program string) int {
	command := exec.Command(program, inv.Args...)
	command.Dir = inv.WorkDir
	command.Env = os.Environ()
	for name, set := range map[string]bool{
		"VERBOSE": inv.Verbose, "LIST": inv.List, "HELP": inv.Help, "DEBUG": inv.Debug,
	} {
		if set {
			command.Env = append(command.Env, "MAGEFILE_"+name+"=1")
		}
	}
	if inv.GoCmd != "" {
		command.Env = append(command.Env, "MAGEFILE_GOCMD="+inv.GoCmd)
	}
	if inv.Timeout > 0 {
		command.Env = append(command.Env, "MAGEFILE_TIMEOUT="+inv.Timeout.String())
	}
	code, err := starter.Run(command)
	if err != nil {
		return fail(fmt.Errorf("running the compiled magefile: %w", err))
	}
	return code
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "Error:", err)
	return 1
}
