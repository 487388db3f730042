package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ambientlab/internal/mage/listing"
	"ambientlab/internal/mage/starter"
)

// TestSettingsOfMakefile holds the build settings against the Makefile's: where they differ, everything is compiled
// twice.
func TestSettingsOfMakefile(t *testing.T) {
	makefile, err := os.ReadFile("../../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range listing.BuildSettings() {
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
	const want = "go: downloading golang.org/x/sys v0.48.0\n# ambientlab/internal/lab\nlab.go:3:1: " +
		"syntax error\nno newline at the end"
	if talk.String() != want {
		t.Errorf("passed on:\n%s\nwant:\n%s", talk.String(), want)
	}
}

// build compiles this program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "mage.exe")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building it: %v\n%s", err, out)
	}
	return program
}

// example writes a module with a magefile and gives its directory.
func example(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "inner", "inner.go"), "package inner\n\nconst Text = \"first\"\n")
	write(t, filepath.Join(dir, "magefile.go"), magefile)
	return dir
}

const magefile = `//go:build mage

package main

import (
	"fmt"
	"os"
	"strconv"

	"example/inner"
)

// Text prints what a package of the module says.
func Text() { fmt.Println(inner.Text) }

// Show shows.
func Show() {
	fmt.Println(os.Getenv("CGO_ENABLED"), os.Getenv("GOFLAGS"),
		os.Getenv("AMBIENTLAB_MAGE") == strconv.Itoa(os.Getppid()))
}

// Fail fails.
func Fail() error { return code(43) }

type code int

func (c code) Error() string   { return "it fails" }
func (c code) ExitStatus() int { return int(c) }
`

// TestMage runs the whole program on a magefile of its own: targets see the build settings and who started them, exit
// codes are kept, and what does not compile says why.
func TestMage(t *testing.T) {
	program, dir := build(t), example(t)
	run := func(args ...string) (string, int) {
		command := exec.Command(program, args...)
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
	if out, code := run("show"); code != 0 || out != "0 "+listing.BuildSettings()["GOFLAGS"]+" true\n" {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, code := run("fail"); code != 43 || !strings.Contains(out, "it fails") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	compiled := filepath.Join(t.TempDir(), "lab")
	if out, code := run("-compile", compiled); code != 0 || out != "" {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, err := exec.Command(compiled, "text").CombinedOutput(); err != nil || string(out) != "first\n" {
		t.Errorf("the compiled program prints %s, %v", out, err)
	}
	if out, code := run("-compile", "lab", "text"); code != 2 || !strings.Contains(out, "unexpected arguments") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, code := run("-l"); code != 0 || !strings.Contains(out, "show") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, code := run("-h", "fail"); code != 0 || !strings.Contains(out, "mage fail") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if out, code := run("-h"); code != 0 || strings.Count(out, "mage [options] [target]") != 1 {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	write(t, filepath.Join(dir, "other.go"), "//go:build mage\n\npackage main\n\nvar wrong int = \"text\"\n")
	if out, code := run("show"); code != 1 || !strings.Contains(out, "other.go:5:17") {
		t.Errorf("it gives code %d and:\n%s", code, out)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "mage_*")); err != nil || len(files) > 0 {
		t.Errorf("left in the checkout: %v, %v", files, err)
	}
}

// TestSimultaneously starts targets at the same time, while the compiled program is missing, out of date or current.
func TestSimultaneously(t *testing.T) {
	program, dir, cache := build(t), example(t), t.TempDir()
	t.Setenv("GOFLAGS", "-trimpath")
	for round, text := range []string{"first", "second", "second", "third", "fourth", "fifth"} {
		write(t, filepath.Join(dir, "inner", "inner.go"), fmt.Sprintf("package inner\n\nconst Text = %q\n", text))
		var group sync.WaitGroup
		for _, args := range [][]string{
			{"text"},
			{"-l"},
			{"text"},
			{"-h", "text"},
			{"-v", "text"},
			{"-compile", filepath.Join(cache, "lab")},
		} {
			group.Go(func() {
				command := exec.Command(program, args...)
				command.Dir = dir
				command.Env = append(os.Environ(), "MAGEFILE_CACHE="+cache)
				out, err := command.CombinedOutput()
				if runs := args[len(args)-1] == "text" &&
					args[0] != "-h"; err != nil ||
					runs && !strings.HasSuffix(string(out), text+"\n") {
					t.Errorf("round %d, %v: %v\n%s", round, args, err, out)
				}
			})
		}
		group.Wait()
	}
	programs, err := filepath.Glob(filepath.Join(cache, prefix+"*"))
	if err != nil || len(programs) != kept+1 { // one is the lock
		t.Errorf("there are %v, %v", programs, err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
