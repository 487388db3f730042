// Package ui renders what the engine reports: as a live tree on a terminal, as plain
// lines with time stamps in a log and as JSON lines for programs. All are made of the
// same events. It also prints failures and tables. It reads events and results, never
// the cluster.
//
// Talk goes to the writer a Renderer is made with, which is standard error; tables
// and other data are for standard output.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"

	"golang.org/x/term"
)

// Kind chooses a renderer; it is the value of SM_OUTPUT.
type Kind string

// The kinds of output. Auto is a live tree where the writer is a terminal that can
// show one, and plain lines elsewhere.
const (
	Auto  Kind = "auto"
	Plain Kind = "plain"
	JSON  Kind = "json"
)

// ParseKind reads a value of SM_OUTPUT; empty means Auto. The error is a
// problem.SettingInvalid.
func ParseKind(value string) (Kind, error) {
	switch k := Kind(value); k {
	case "":
		return Auto, nil
	case Auto, Plain, JSON:
		return k, nil
	}
	return "", problem.New(problem.SettingInvalid, nil, "SM_OUTPUT=%q is not one of auto, plain, json", value)
}

// Renderer shows a run. Its methods may be called from any goroutine; what they write
// is never interleaved.
type Renderer interface {
	engine.Sink
	// Failure shows an error as a person needs it: what was seen, why, what to do,
	// the problem's ID and the exit code. It does nothing for nil.
	Failure(err error)
	// Log gives a writer for other programs' words, such as kind's, which appear
	// whole lines at a time between the renderer's own.
	Log() io.Writer
	// Close shows what is still to be shown, and leaves the terminal as it was. The
	// renderer writes nothing afterwards.
	Close() error
}

// New makes the renderer of a kind on w. env looks up environment variables, as
// os.Getenv does: NO_COLOR, TERM, COLUMNS, CI, LC_ALL, LC_CTYPE and LANG are heeded.
func New(kind Kind, w io.Writer, env func(string) string) Renderer {
	switch kind {
	case JSON:
		return newJSON(w)
	case Plain:
		return newPlain(w, env)
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

// Sinks hands every event to each of several sinks, in order.
type Sinks []engine.Sink

// Handle implements engine.Sink.
func (s Sinks) Handle(ev engine.Event) {
	for _, sink := range s {
		sink.Handle(ev)
	}
}

// summary says in a few words how a plan ended.
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
	add(res.Count(engine.Unchanged), "already so")
	add(res.Count(engine.Failed), "failed")
	add(res.Count(engine.Canceled), "cancelled")
	switch n := len(res.Changes()); {
	case n == 1:
		parts = append(parts, "1 change")
	case n > 1:
		parts = append(parts, fmt.Sprintf("%d changes", n))
	case res.Count(engine.Done) == 0:
		parts = append(parts, "nothing changed")
	}
	return strings.Join(parts, ", ")
}

func changeText(c *engine.Change) string {
	if c == nil {
		return ""
	}
	text := c.Action + " " + c.Object
	if c.Detail != "" {
		text += " (" + c.Detail + ")"
	}
	return text
}
