package ui

import (
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// mostAnnotations is how many error annotations of one step GitHub shows.
const mostAnnotations = 10

// github writes the lines of plain with GitHub's workflow commands: a group for each plan, an error annotation for each
// failure of a target, up to as many as GitHub shows, and an annotation for each warning.
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
type github struct {
	mu    sync.Mutex
	out   io.Writer
	plain *plain
	// token ends the part of the output in which GitHub reads no commands: text from a cluster could hold some.
	token func() string
	open  bool
}

func newGitHub(w io.Writer, env func(string) string) *github {
	return &github{out: w, plain: newPlain(w, env), token: rand.Text}
}

// Handle implements engine.Sink. A line of plain begins with a time stamp, so that none is taken for a command.
func (g *github) Handle(ev engine.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch ev.Kind {
	case engine.PlanStarted:
		g.endGroup()
		g.command("group", "", oneLine(ev.Title))
		g.open = true
	case engine.Warning:
		g.command("warning", "title="+property(oneLine(ev.Title)), oneLine(ev.Message))
	}
	g.plain.Handle(ev)
	if ev.Kind == engine.PlanDone || ev.Kind == engine.PlanFailed {
		g.endGroup()
	}
}

func (g *github) endGroup() {
	if g.open {
		g.command("endgroup", "", "")
		g.open = false
	}
}

// Failure implements Renderer. The first annotation is about the failure that gives the target its exit code.
func (g *github) Failure(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		return
	}
	g.endGroup()
	failures := Branches(err)
	for _, failure := range failures[:min(len(failures), mostAnnotations)] {
		g.annotate(failure)
	}
	token := g.token()
	g.command("stop-commands", "", token)
	g.plain.Failure(err)
	g.command(token, "", "")
}

// annotate writes the error annotation of one failure.
func (g *github) annotate(failure error) {
	r := newReport(failure)
	text := r.seen
	if r.step != "" {
		text = r.step + ": " + text
	}
	text = strings.Join(append([]string{text}, r.why()...), "\n")
	title := r.id
	if title == "" {
		title = fmt.Sprintf("Exit code %d", problem.ExitCode(failure))
	}
	g.command("error", "title="+property(oneLine(title)), printable(text))
}

// Close implements Renderer.
func (g *github) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endGroup()
	return g.plain.Close()
}

// command writes a workflow command. An error of writing to standard error cannot be reported anywhere.
func (g *github) command(name, properties, text string) {
	if properties != "" {
		name += " " + properties
	}
	_, _ = fmt.Fprintf(g.out, "::%s::%s\n", name, escape(text))
}

// escape and property encode text as GitHub's own toolkit does (actions/toolkit, packages/core/src/command.ts).
func escape(text string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(text)
}

func property(text string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(escape(text))
}

// gitlab writes the lines of plain with a collapsible section for each plan.
// https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
type gitlab struct {
	mu    sync.Mutex
	out   io.Writer
	plain *plain
	// count numbers the sections: two must not have the same name. open is the name of the one that is open.
	count int
	open  string
}

func newGitLab(w io.Writer, env func(string) string) *gitlab {
	return &gitlab{out: w, plain: newPlain(w, env)}
}

// Handle implements engine.Sink.
func (g *gitlab) Handle(ev engine.Event) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if ev.Kind == engine.PlanStarted {
		g.endSection(ev.Time)
		g.count++
		g.open = fmt.Sprintf("lab_%d", g.count)
		_, _ = fmt.Fprintf(g.out, "\x1b[0Ksection_start:%d:%s\r\x1b[0K%s\n", ev.Time.Unix(), g.open, oneLine(ev.Title))
	}
	g.plain.Handle(ev)
	if ev.Kind == engine.PlanDone || ev.Kind == engine.PlanFailed {
		g.endSection(ev.Time)
	}
}

func (g *gitlab) endSection(at time.Time) {
	if g.open == "" {
		return
	}
	_, _ = fmt.Fprintf(g.out, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", at.Unix(), g.open)
	g.open = ""
}

// Failure implements Renderer.
func (g *gitlab) Failure(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endSection(time.Now())
	g.plain.Failure(err)
}

// Close implements Renderer.
func (g *gitlab) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endSection(time.Now())
	return g.plain.Close()
}
