package listing

import (
	"os"
	"os/exec"
	"strings"
)

// BuildSettings are those of the Makefile, for an environment that does not set them.
func BuildSettings() map[string]string {
	return map[string]string{
		"CGO_ENABLED": "0",
		"GOFLAGS":     "-trimpath -tags=disable_pgv -gcflags=all=-dwarf=false",
	}
}

// SetBuildSettings sets what the environment does not set.
func SetBuildSettings() {
	for name, value := range BuildSettings() {
		if _, given := os.LookupEnv(name); !given {
			_ = os.Setenv(name, value)
		}
	}
}

// Settings is what the Go command says about itself in dir, other than names of temporary files, and what Mage's
// environment says about the code that it generates.
func Settings(goCommand, dir string) (string, error) {
	command := exec.Command(goCommand, "env")
	command.Dir = dir
	out, err := command.Output()
	if err != nil {
		return "", err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(out)) {
		// GOGCCFLAGS names a new temporary directory each time; the rest of it follows from CC, CGO_CFLAGS and so on.
		if name, _, _ := strings.Cut(strings.TrimPrefix(line, "set "), "="); name != "GOGCCFLAGS" {
			kept.WriteString(line)
		}
	}
	kept.WriteString("MAGEFILE_MULTILINE=" + os.Getenv("MAGEFILE_MULTILINE") + "\n")
	return kept.String(), nil
}
