// Command mage is Mage for this project; `go tool mage` runs it (see the tool directive in go.mod). It does what an
// installed mage does, with two things added: the lab is compiled with the settings that everything else of the project
// is compiled with, so that nothing is compiled twice, and a compilation that takes long says so.
//
// Mage's own Main is made for being called from other programs (magefile/mage, mage/main.go).
package main

import (
	"os"

	"github.com/magefile/mage/mage"
	"github.com/magefile/mage/mg"

	"ambientlab/internal/mage/starter"
)

// buildSettings are those of the Makefile, for an environment that says nothing of its own.
var buildSettings = map[string]string{
	"CGO_ENABLED": "0",
	"GOFLAGS":     "-trimpath -tags=disable_pgv -gcflags=all=-dwarf=false",
}

func main() {
	if starter.IsParent(os.Getenv, os.Getppid) { // Mage's Go command is this program again, see below
		os.Exit(runGo(os.Args[1:], os.Stderr))
	}
	for name, value := range buildSettings {
		if _, given := os.LookupEnv(name); !given {
			_ = os.Setenv(name, value)
		}
	}
	// The compiled lab looks at the mark too: it names `go tool mage` in what it says to type next.
	_ = starter.Mark()
	if _, given := os.LookupEnv(mg.GoCmdEnv); !given {
		if self, err := os.Executable(); err == nil {
			_ = os.Setenv(mg.GoCmdEnv, self)
		}
	}
	os.Exit(mage.Main())
}
