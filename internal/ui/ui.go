// Package ui renders the events of the engine: as a live tree on a terminal, as plain lines with time stamps in a log,
// or as JSON lines for programs. It also formats failures, tables and previews. It reads events and results, never the
// cluster.
//
// A Renderer writes to standard error. Tables and previews are data for standard output.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"ambientlab/internal/engine"
)

// Kind is the kind of a renderer, the value of SM_OUTPUT.
type Kind string

// The kinds of output. Auto is that of the CI platform where there is one, a live tree if the writer is a terminal that
// supports it, and plain lines otherwise. Chosen says which.
const (
	Auto   Kind = "auto"
	Plain  Kind = "plain"
	JSON   Kind = "json"
	GitHub Kind = "github"
	GitLab Kind = "gitlab"
)

// Renderer shows a run. Its methods may be called from any goroutine; their output is never interleaved.
type Renderer interface {
	engine.Sink
	// Failure shows an error: what was observed, the cause, what to do, the problem's ID and the exit code. It does
	// nothing for nil.
	Failure(err error)
	// Close writes pending output and stops the renderer. The renderer writes nothing afterwards.
	Close() error
}

// Chosen replaces Auto with the kind of the CI platform that runs this process, if it has one. Other kinds stay.
func Chosen(kind Kind, env func(string) string) Kind {
	switch {
	case kind != Auto:
	case env("GITHUB_ACTIONS") == "true":
		return GitHub
	case env("GITLAB_CI") == "true":
		return GitLab
	}
	return kind
}

// New returns a renderer that writes to w. env looks up environment variables, as os.Getenv does. New reads NO_COLOR,
// TERM, COLUMNS, CI, GITHUB_ACTIONS, GITLAB_CI, LC_ALL, LC_CTYPE and LANG.
func New(kind Kind, w io.Writer, env func(string) string) Renderer {
	switch Chosen(kind, env) {
	case JSON:
		return newJSON(w)
	case Plain:
		return newPlain(w, env)
	case GitHub:
		return newGitHub(w, env)
	case GitLab:
		return newGitLab(w, env)
	}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || env("TERM") == "dumb" || env("CI") != "" {
		return newPlain(w, env)
	}
	t := newTree(w, env, func() (width, height int) {
		width, height, err := term.GetSize(int(file.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			return defaultWidth, defaultHeight
		}
		return width, height
	}, time.Now)
	t.animate()
	return t
}

// summary says how a plan ended.
func summary(res *engine.Result) string {
	if res == nil {
		return ""
	}
	var parts []string
	add := func(n int, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(res.Count(engine.Done), "done")
	add(res.Count(engine.Unchanged), "unchanged")
	add(res.Count(engine.Failed), "failed")
	add(res.Count(engine.Canceled), "cancelled")
	if n := len(res.Changes()); n > 0 {
		parts = append(parts, counted(n, "change"))
	} else {
		parts = append(parts, "no changes")
	}
	return strings.Join(parts, ", ")
}

// counted is a number of things, such as "1 step".
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

func changeText(c *engine.Change) string {
	if c == nil {
		return ""
	}
	return c.String()
}
