package ui

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"

	"ambientlab/internal/engine"
)

// plain writes one line per event, each with a time stamp and the step's ID, so that
// a log can be read and searched.
type plain struct {
	mu    sync.Mutex
	out   io.Writer
	width int
	now   func() time.Time
	done  bool
}

func newPlain(w io.Writer, env func(string) string) *plain {
	return &plain{out: w, width: columns(env), now: time.Now}
}

func (p *plain) line(at time.Time, subject, text string) {
	if p.done {
		return
	}
	text = oneLine(text)
	if subject != "" {
		text = subject + ": " + text
	}
	// There is nobody to tell that standard error cannot be written.
	_, _ = fmt.Fprintf(p.out, "%s %s\n", at.UTC().Format("2006-01-02T15:04:05Z"), text)
}

// Handle implements engine.Sink.
func (p *plain) Handle(ev engine.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	subject, text := plainWords(ev)
	p.line(ev.Time, subject, text)
}

func plainWords(ev engine.Event) (subject, text string) {
	with := func(text, message string) string {
		if message == "" {
			return text
		}
		return text + ": " + message
	}
	took := duration(ev.Duration)
	switch ev.Kind {
	case engine.PlanStarted:
		return ev.Plan, fmt.Sprintf("%s (%d steps)", ev.Title, len(ev.Steps))
	case engine.PlanDone:
		return ev.Plan, with("done in "+took, summary(ev.Result))
	case engine.PlanFailed:
		return ev.Plan, with("FAILED after "+took, summary(ev.Result))
	case engine.StepStarted:
		return ev.Step, with("start", ev.Title)
	case engine.StepProgress:
		return ev.Step, ev.Message
	case engine.StepChanged:
		return ev.Step, changeText(ev.Change)
	case engine.StepUnchanged:
		return ev.Step, with("already so", ev.Message)
	case engine.StepDone:
		return ev.Step, with("done in "+took, ev.Message)
	case engine.StepFailed:
		return ev.Step, with("FAILED after "+took, ev.Message)
	case engine.StepCanceled:
		return ev.Step, with("cancelled", ev.Message)
	default:
		return ev.Step, ev.Message
	}
}

// Failure implements Renderer.
func (p *plain) Failure(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || p.done {
		return
	}
	_, _ = io.WriteString(p.out, FailureText(err, p.width))
}

// Log implements Renderer.
func (p *plain) Log() io.Writer {
	return &lineWriter{emit: func(line string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.line(p.now(), "", line)
	}}
}

// Close implements Renderer.
func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	return nil
}

// lineWriter hands on whole lines. A last line without an end is handed on when the
// next write ends it; spinners that return the carriage count as ending a line.
type lineWriter struct {
	mu   sync.Mutex
	rest []byte
	emit func(string)
}

// Write implements io.Writer and never fails.
func (l *lineWriter) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, data...)
	for {
		end := bytes.IndexAny(l.rest, "\r\n")
		if end < 0 {
			return len(data), nil
		}
		if line := oneLine(string(l.rest[:end])); line != "" {
			l.emit(line)
		}
		l.rest = l.rest[end+1:]
	}
}
