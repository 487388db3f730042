package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/mage/starter"
)

// TestSettingsOfMakefile holds the build settings against the Makefile's: where they differ, everything is compiled twice.
func TestSettingsOfMakefile(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range buildSettings {
		if line := "export " + name + " := " + value + "\n"; !strings.Contains(string(makefile), line) {
			t.Errorf("the Makefile has no line %q", line)
		}
	}
}

func TestCounter(t *testing.T) {
	var talk bytes.Buffer
	packages := &counter{to: &talk}
	for _, piece := range []string{
		"go: downloading golang.org/x/sys v0.48.0\ninternal/abi\nk8s.io/api/co", "re/v1\ncommand-line-", "arguments\n",
		"# ambientlab/internal/lab\nlab.go:3:1: syntax error\nno newline at the end",
	} {
		if n, err := packages.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write gives %d, %v", n, err)
		}
	}
	packages.flush()
	if packages.count() != 3 {
		t.Errorf("counted %d packages, there were 3", packages.count())
	}
	const want = "go: downloading golang.org/x/sys v0.48.0\n# ambientlab/internal/lab\nlab.go:3:1: syntax error\nno newline at the end"
	if talk.String() != want {
		t.Errorf("passed on:\n%s\nwant:\n%s", talk.String(), want)
	}
}

// TestMage runs the whole program on a magefile of its own: targets see the build settings and who started them, exit
// codes are kept, and what does not compile says why.
func TestMage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "mage.exe")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "magefile.go"), `//go:build mage

package main

import (
	"fmt"
	"os"
	"strconv"
)

// Show shows.
func Show() {
	fmt.Println(os.Getenv("CGO_ENABLED"), os.Getenv("GOFLAGS"), os.Getenv("AMBIENTLAB_MAGE") == strconv.Itoa(os.Getppid()))
}

// Fail fails.
func Fail() error { return code(43) }

type code int

func (c code) Error() string   { return "it fails" }
func (c code) ExitStatus() int { return int(c) }
`)
	run := func(target string) (string, int) {
		command := exec.Command(program, target)
		command.Dir = dir
		command.Env = append(os.Environ(), "MAGEFILE_CACHE="+t.TempDir(), starter.Variable+"=1")
		out, err := command.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), command.ProcessState.ExitCode()
	}
	t.Setenv("GOFLAGS", "-trimpath")
	if out, code := run("show"); code != 0 || !strings.Contains(out, " -trimpath true\n") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if err := os.Unsetenv("GOFLAGS"); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CGO_ENABLED", "0")
	if out, code := run("show"); code != 0 || out != "0 "+buildSettings["GOFLAGS"]+" true\n" {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, code := run("fail"); code != 43 || !strings.Contains(out, "it fails") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	write(t, filepath.Join(dir, "other.go"), "//go:build mage\n\npackage main\n\nvar wrong int = \"text\"\n")
	if out, code := run("show"); code != 1 || !strings.Contains(out, "other.go:5:17") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
