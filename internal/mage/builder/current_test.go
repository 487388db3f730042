package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"ambientlab/internal/mage/listing"
)

// TestFingerprint changes one input at a time: each change of an input gives another fingerprint, and nothing else
// does. Where the fingerprint differs, the file system tells it too.
func TestFingerprint(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "go.mod"), "module example.org/outside\n")
	write(t, filepath.Join(outside, "outside.go"), "package outside\n")
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		same   bool
	}{
		{name: "no change", change: func(*testing.T, string) {}, same: true},
		{name: "the magefile", change: edit("magefile.go", "package main // edited\n")},
		{name: "a package", change: edit("inner/deep/deep.go", "package deep // edited\n")},
		{name: "a package, with its size and time kept", change: func(t *testing.T, dir string) {
			name := filepath.Join(dir, "inner/deep/deep.go")
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			write(t, name, "package deeq\n")
			if err := os.Chtimes(name, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "a time only", change: func(t *testing.T, dir string) {
			if err := os.Chtimes(filepath.Join(dir, "inner/deep/deep.go"), time.Now(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}, same: true},
		{name: "a new file", change: edit("inner/new.go", "package inner\n")},
		{name: "a new package", change: edit("inner/other/other.go", "package other\n")},
		{name: "a deleted file", change: remove("inner/deep/deep.go")},
		{name: "a renamed file", change: func(t *testing.T, dir string) {
			inner := filepath.Join(dir, "inner")
			if err := os.Rename(filepath.Join(inner, "inner.go"),
				filepath.Join(inner, "inner_windows.go")); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "an assembly file", change: edit("inner/a_amd64.s", "\n")},
		{name: "a test", change: edit("inner/inner_test.go", "package inner\n"), same: true},
		{name: "an embedded file", change: edit("inner/files/sub/a.yaml", "edited\n")},
		{name: "a new embedded file", change: edit("inner/files/sub/b.yaml", "new\n")},
		{name: "a deleted embedded file", change: remove("inner/files/sub/a.yaml")},
		{name: "an embedded file with a quoted name", change: edit("inner/quoted/a file.txt", "edited\n")},
		{name: "a file that is not embedded", change: edit("notes/notes.txt", "edited\n"), same: true},
		{name: "a nested module", change: edit("inner/nested/nested.go", "package nested // edited\n"), same: true},
		{name: "go.mod", change: edit("go.mod", gomod(outside)+"\n// edited\n")},
		{name: "go.sum", change: edit("go.sum", "edited\n")},
		{name: "a replacement outside", change: func(t *testing.T, _ string) {
			write(t, filepath.Join(outside, "outside.go"), "package outside // edited\n")
		}},
		{name: "a replacement inside", change: edit("inner/replaced/replaced.go", "package replaced // edited\n")},
		{
			name:   "a replacement's go.mod",
			change: edit("inner/replaced/go.mod", "module example.org/replaced\n\ngo 1.25\n"),
		},
		{name: "a linked package", change: func(t *testing.T, _ string) {
			write(t, filepath.Join(outside, "linked", "linked.go"), "package linked // edited\n")
		}},
		{name: "build flags", change: func(t *testing.T, _ string) { t.Setenv("GOFLAGS", "-tags=other") }},
		{name: "the operating system", change: func(t *testing.T, _ string) { t.Setenv("GOOS", "plan9") }},
		{name: "cgo", change: func(t *testing.T, _ string) { t.Setenv("CGO_ENABLED", "1") }},
		{name: "an experiment", change: func(t *testing.T, _ string) { t.Setenv("GOEXPERIMENT", "nogreenteagc") }},
		{name: "Go's own settings file", change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "settings"), "GOAMD64=v3\nGOARM64=v8.1\n")
			t.Setenv("GOENV", filepath.Join(dir, "settings"))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GOFLAGS", "")
			t.Setenv("CGO_ENABLED", "0")
			t.Setenv("GOWORK", "")
			write(t, filepath.Join(outside, "outside.go"), "package outside\n")
			write(t, filepath.Join(outside, "linked", "linked.go"), "package linked\n")
			dir := t.TempDir()
			for name, text := range map[string]string{
				"go.mod":      gomod(outside),
				"magefile.go": "package main\n",
				"inner/inner.go": "package inner\n\n//go:embed all:files/*/*.yaml\n//go:embed \"quoted/a " +
					"file.txt\" `other`\nvar x embed.FS\n",
				"inner/files/sub/a.yaml":     "a\n",
				"inner/quoted/a file.txt":    "a\n",
				"inner/deep/deep.go":         "package deep\n",
				"inner/nested/go.mod":        "module nested\n",
				"inner/nested/nested.go":     "package nested\n",
				"inner/replaced/go.mod":      "module example.org/replaced\n",
				"inner/replaced/replaced.go": "package replaced\n",
				"notes/notes.txt":            "notes\n",
			} {
				write(t, filepath.Join(dir, name), text)
			}
			if err := os.Symlink(filepath.Join(outside, "linked"), filepath.Join(dir, "inner", "linked")); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("..", filepath.Join(dir, "inner", "loop")); err != nil {
				t.Fatal(err)
			}
			t.Setenv("MAGEFILE_CACHE", t.TempDir())
			t.Setenv("MAGEFILE_MULTILINE", "")
			before, in, err := fingerprint("go", dir)
			if err != nil {
				t.Fatal(err)
			}
			list := listing.Listing{Program: "lab", Settings: in.settings, States: in.states}
			if err := list.Write(dir); err != nil {
				t.Fatal(err)
			}
			current := func() string {
				return listing.Current(dir, func() (string, error) { return listing.Settings("go", dir) })
			}
			if program := current(); program != "lab" {
				t.Errorf("with no change the file system says that %q is current", program)
			}
			nextTime(t)
			tt.change(t, dir)
			if program := current(); program != "" && !tt.same {
				t.Errorf("after the change the file system says that %s is current", program)
			}
			after, _, err := fingerprint("go", dir)
			if err != nil || (before == after) != tt.same {
				t.Errorf("before %s, after %s, %v", before, after, err)
			}
		})
	}
}

// nextTime returns when a file that is changed gets a later time than those that were changed before.
func nextTime(t *testing.T) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	var first time.Time
	for {
		write(t, name, "")
		_, changed, known := listing.State(name)
		if !known {
			t.Skip("this system does not tell when a file's status changed, so no listing is kept")
		}
		if first.IsZero() {
			first = changed
		}
		if changed.After(first) {
			return
		}
	}
}

// TestComparable: what the file system says is only kept of files that were last changed a while ago.
func TestComparable(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), "module example\n\ngo 1.26\n")
	write(t, filepath.Join(dir, "magefile.go"), "package main\n")
	nextTime(t)
	t.Setenv("GOFLAGS", "")
	began := time.Now()
	for {
		_, in, err := fingerprint("go", dir)
		if err != nil {
			t.Fatal(err)
		}
		if in.comparable {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	if took := time.Since(began); took < listing.Granularity-time.Second {
		t.Errorf("comparable %s after the last change", took)
	}
}

// TestFingerprintUnknown: with inputs outside of the module the Go command has to look.
func TestFingerprintUnknown(t *testing.T) {
	dir := t.TempDir()
	check := func(t *testing.T) {
		t.Helper()
		if key, _, err := fingerprint("go", dir); !errors.Is(err, errUnknown) {
			t.Errorf("got %s, %v", key, err)
		}
	}
	t.Run("no module", check)
	write(t, filepath.Join(dir, "go.mod"), "module example\n")
	t.Run("a workspace", func(t *testing.T) {
		t.Setenv("GOWORK", "")
		write(t, filepath.Join(dir, "go.work"), "go 1.26\n\nuse .\n")
		check(t)
	})
	t.Setenv("GOWORK", "off")
	for _, flag := range []string{"-modfile=other.mod", "--overlay=x.json", "-pgo=x", "-toolexec=x"} {
		t.Run(flag, func(t *testing.T) {
			t.Setenv("GOFLAGS", "-trimpath "+flag)
			check(t)
		})
	}
	t.Setenv("GOFLAGS", "-trimpath")
	if _, _, err := fingerprint("go", dir); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "go.mod"), "module example\n\nreplace (\n")
	t.Run("go.mod with an error", check)
}

func gomod(outside string) string {
	return "module example\n\ngo 1.26\n\nreplace example.org/outside => " + outside +
		"\n\nreplace example.org/replaced v1.0.0 => ./inner/replaced\n"
}

func edit(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { write(t, filepath.Join(dir, name), text) }
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}
