package gomod

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/problem"
)

// checkout makes a main module's folder whose go.sum lists one module.
func checkout(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "// a comment\nmodule ambientlab\n")
	write(t, filepath.Join(root, "go.sum"), "example.test/m v1.0.0/go.mod h1:mod=\nexample.test/m v1.0.0 h1:good=\n")
	return root
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	answer := func(out string, err error) goCommand {
		return func(context.Context, string, ...string) ([]byte, error) { return []byte(out), err }
	}
	exit := errors.New("go mod download: exit status 1: stderr words")
	for _, tc := range []struct {
		name    string
		command goCommand
		want    string // the folder, or a part of the problem
		fails   bool
	}{
		{
			"found", answer(`{"Path":"example.test/m","Version":"v1.0.0","Dir":"/cache/m","Sum":"h1:good="}`, nil),
			"/cache/m", false,
		},
		{"no go command", answer("", &exec.Error{Name: "go", Err: exec.ErrNotFound}), "no go command", true},
		{
			"no network", answer(`{"Path":"example.test/m","Version":"v1.0.0","Error":"dial tcp: no such host"}`, exit),
			"no such host", true,
		},
		{"command fails", answer("", exit), "stderr words", true},
		{
			"tampered", answer(`{"Path":"example.test/m","Version":"v1.0.0","Dir":"/cache/m","Sum":"h1:evil="}`, nil),
			"go.sum says h1:good=", true,
		},
		{
			"unlisted version",
			answer(`{"Path":"example.test/m","Version":"v2.0.0","Dir":"/cache/m","Sum":"h1:good="}`, nil),
			"does not list", true,
		},
		{"another module", answer(`{"Path":"example.test/other"}`, nil), "does not mention", true},
		{"garbage", answer(`go: what`, nil), "the go command's answer", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := New(checkout(t))
			m.command = tc.command
			dir, err := m.Dir(t.Context(), "example.test/m")
			if !tc.fails {
				if err != nil || dir != tc.want {
					t.Errorf("got %q, %v", dir, err)
				}
				return
			}
			if !problem.Is(err, problem.ManifestUnavailable) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a problem with %q", err, tc.want)
			}
		})
	}
}

func TestModuleIsAskedOnceAndFailuresAgain(t *testing.T) {
	m := New(checkout(t))
	calls, fail := 0, true
	m.command = func(context.Context, string, ...string) ([]byte, error) {
		calls++
		if fail {
			return nil, errors.New("no network")
		}
		return []byte(`{"Path":"example.test/m","Version":"v1.0.0","Dir":"/cache/m","Sum":"h1:good="}`), nil
	}
	if _, err := m.Dir(t.Context(), "example.test/m"); err == nil {
		t.Fatal("no error")
	}
	fail = false
	for range 3 {
		if _, err := m.Dir(t.Context(), "example.test/m"); err != nil {
			t.Fatal(err)
		}
	}
	if calls != 2 {
		t.Errorf("the go command ran %d times, want 2", calls)
	}
}

func TestRoot(t *testing.T) {
	root := checkout(t)
	deep := filepath.Join(root, "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	// A nested module of another name, as internal/source/modules has them.
	write(t, filepath.Join(deep, "go.mod"), "module example.test/nested\n")
	m := New("")
	m.getwd = func() (string, error) { return deep, nil }
	if got, err := m.Root(); err != nil || got != root {
		t.Errorf("got %q, %v, want %q", got, err, root)
	}
	m = New("")
	m.getwd = func() (string, error) { return t.TempDir(), nil }
	if _, err := m.Root(); !problem.Is(err, problem.ManifestUnavailable) {
		t.Errorf("outside of a checkout: %v", err)
	}
}
