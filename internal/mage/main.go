// Command mage is Mage for this project; `go tool mage` runs it (see the tool directives in go.mod). It does what an
// installed mage does, with these differences:
//
//   - The lab is compiled with the settings of the Makefile, so that nothing is compiled twice.
//   - A compilation that takes long reports its progress.
//   - A compiled lab that is current is run at once: what the file system says of all inputs decides that, or else a
//     hash of their content, not the Go command.
//   - SIGTERM and SIGHUP are passed on to the compiled lab, which ends in an orderly way and whose exit code arrives.
//   - Several runs in one checkout do not disturb each other: no file is written into it, and one of them compiles.
//
// This program only runs a compiled lab of which package listing knows that it is current. Everything else does command
// builder. They are two programs because the Go command reads the source of every package of a tool before it runs it.
package main

import (
	"os"
	"os/exec"
	"strings"
	"time"

	"ambientlab/internal/mage/listing"
	"ambientlab/internal/mage/starter"
)

// builder is a compiled command builder for tests; otherwise the Go command runs it.
var builder string

func main() {
	listing.SetBuildSettings()
	// The compiled lab looks at the mark: it names `go tool mage` in the commands that it prints.
	_ = starter.Mark()
	command := current(os.Args[1:])
	switch {
	case command != nil:
	case builder != "":
		command = exec.Command(builder, os.Args[1:]...)
	default:
		command = exec.Command(
			goCommand(), append([]string{"tool", "ambientlab/internal/mage/builder"}, os.Args[1:]...)...)
	}
	code, err := starter.Run(command)
	if err != nil {
		_, _ = os.Stderr.WriteString("Error: " + err.Error() + "\n")
	}
	os.Exit(code)
}

// goCommand is the Go command that Mage uses (magefile/mage, mg.GoCmd).
func goCommand() string {
	if name := os.Getenv("MAGEFILE_GOCMD"); name != "" {
		return name
	}
	return "go"
}

// current gives the command that runs a compiled lab which is known to be current, or nil. Options of Mage's own come
// before the target, and are for command builder.
func current(args []string) *exec.Cmd {
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil
	}
	program := listing.Current(dir, func() (string, error) { return listing.Settings(goCommand(), dir) })
	now := time.Now()
	if program == "" || os.Chtimes(program, now, now) != nil { // the programs that were used last are kept
		return nil
	}
	command := exec.Command(program, args...)
	command.Env = append(os.Environ(), "MAGEFILE_GOCMD="+goCommand())
	return command
}
