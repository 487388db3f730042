package ui

import (
	"fmt"
	"io"
	"sync"
	"time"

	"ambientlab/internal/engine"
)

// plain writes one line per event with a time stamp and the ID of the step, for logs.
type plain struct {
	mu    sync.Mutex
	out   io.Writer
	width int
	done  bool
}

func newPlain(w io.Writer, env func(string) string) *plain {
	return &plain{out: w, width: columns(env)}
}

func (p *plain) line(at time.Time, subject, text string) {
	if p.done {
		return
	}
	text = oneLine(text)
	if subject != "" {
		text = subject + ": " + text
	}
	// An error of writing to standard error cannot be reported anywhere.
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
		return ev.Step, with("unchanged", ev.Message)
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

// Close implements Renderer.
func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	return nil
}
