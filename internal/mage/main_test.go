package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"ambientlab/internal/mage/listing"
)

// TestStart starts targets as `go tool mage` does: a compiled lab that is current is run without command builder, and
// every edit is noticed.
func TestStart(t *testing.T) {
	programs := t.TempDir()
	builder, mage := filepath.Join(programs, "builder.exe"), filepath.Join(programs, "mage.exe")
	for _, args := range [][]string{
		{"-o", builder, "./builder"},
		{"-o", mage, "-ldflags", "-X main.builder=" + builder, "."},
	} {
		if out, err := exec.Command("go", append([]string{"build"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("go build %v: %v\n%s", args, err, out)
		}
	}
	dir := t.TempDir()
	edited := filepath.Join(dir, "inner", "inner.go")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "go.mod"), "module example\n\ngo 1.26\n")
	write(edited, "package inner\n\nconst Text = \"first\"\n")
	write(filepath.Join(dir, "magefile.go"), "//go:build mage\n\npackage main\n\nimport (\n\t\"fmt\"\n\n"+
		"\t\"example/inner\"\n)\n\nfunc Text() { fmt.Println(inner.Text) }\n")
	t.Setenv("MAGEFILE_CACHE", t.TempDir())
	run := func(args ...string) string {
		t.Helper()
		command := exec.Command(mage, args...)
		command.Dir = dir
		out, err := command.CombinedOutput()
		if err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if _, _, known := listing.State(dir); !known {
		t.Skip("this system does not tell when a file's status changed, so no listing is kept")
	}
	current := func() string {
		return listing.Current(dir, func() (string, error) {
			listing.SetBuildSettings()
			return listing.Settings("go", dir)
		})
	}
	settle := func(want string) {
		t.Helper()
		for current() == "" { // until the last change was a while ago
			if out := run("text"); out != want+"\n" {
				t.Fatalf("printed %q, want %s", out, want)
			}
			<-time.After(200 * time.Millisecond)
		}
	}
	settle("first")
	if err := os.Rename(builder, builder+"-away"); err != nil {
		t.Fatal(err)
	}
	if out := run("text"); out != "first\n" {
		t.Errorf("without command builder it prints %q", out)
	}
	if err := os.Rename(builder+"-away", builder); err != nil {
		t.Fatal(err)
	}
	if out := run("-v", "text"); out != "Running target: Text\nfirst\n" {
		t.Errorf("with an option it prints %q", out)
	}
	info, err := os.Stat(edited)
	if err != nil {
		t.Fatal(err)
	}
	write(edited, "package inner\n\nconst Text = \"other\"\n")
	if err := os.Chtimes(edited, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if out := run("text"); out != "other\n" {
		t.Errorf("after an edit that kept size and time it prints %q", out)
	}
	settle("other")
	if err := os.Remove(current()); err != nil {
		t.Fatal(err)
	}
	if out := run("text"); out != "other\n" {
		t.Errorf("after the compiled program was removed it prints %q", out)
	}
}
