package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/engine"
)

// plain writes one line per event with a time stamp and the IDs of the plan and the step, for logs. Objects that a step
// creates or deletes one after the other share a line.
type plain struct {
	mu    sync.Mutex
	out   io.Writer
	width int
	done  bool
	// pending holds, by step, the changes that have no line yet; started are the steps that have begun.
	pending map[string][]engine.Event
	started map[string]bool
}

func newPlain(w io.Writer, env func(string) string) *plain {
	return &plain{out: w, width: columns(env), pending: map[string][]engine.Event{}, started: map[string]bool{}}
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
	if ev.Kind == engine.Warning {
		return // the target prints its warnings itself
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	step := subject(ev)
	switch waiting := p.pending[step]; {
	case waits(ev) && (len(waiting) == 0 || waiting[0].Change.Action == ev.Change.Action):
		p.pending[step] = append(waiting, ev)
		return
	case len(waiting) > 0:
		p.line(ev.Time, step, changesText(waiting))
		delete(p.pending, step)
	}
	switch ev.Kind {
	case engine.PlanStarted:
		clear(p.started)
	case engine.StepStarted:
		p.started[ev.Step] = true
	case engine.StepCanceled:
		if !p.started[ev.Step] {
			return // the line of the step that failed and the count in the last line say it
		}
	}
	p.line(ev.Time, step, plainWords(ev))
}

// subject names what an event is about: a plan, or a step of one.
func subject(ev engine.Event) string {
	switch {
	case ev.Step == "" && ev.Kind == engine.Note:
		return ""
	case ev.Step == "" || ev.Plan == "":
		return ev.Plan + ev.Step
	default:
		return ev.Plan + "/" + ev.Step
	}
}

// waits says whether a change may share a line with others: that of a whole object.
func waits(ev engine.Event) bool {
	return ev.Kind == engine.StepChanged && ev.Change != nil && ev.Change.Detail == "" &&
		(ev.Change.Action == engine.Create || ev.Change.Action == engine.Delete)
}

// named is up to how many objects changesText names each.
const named = 4

// changesText names a few objects, and of many how many there are of each kind.
func changesText(changes []engine.Event) string {
	var objects, kinds []string
	count := map[string]int{}
	for _, ev := range changes {
		objects = append(objects, ev.Change.Object)
		kind, _, _ := strings.Cut(ev.Change.Object, " ")
		if count[kind]++; count[kind] == 1 {
			kinds = append(kinds, kind)
		}
	}
	action := changes[0].Change.Action
	if len(objects) <= named {
		return action + " " + strings.Join(objects, ", ")
	}
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d %s", count[kind], kind)
	}
	return fmt.Sprintf("%s %d objects: %s", action, len(objects), strings.Join(kinds, ", "))
}

func plainWords(ev engine.Event) string {
	with := func(text, message string) string {
		if message == "" {
			return text
		}
		return text + ": " + message
	}
	took := duration(ev.Duration)
	switch ev.Kind {
	case engine.PlanStarted:
		return fmt.Sprintf("%s (%s)", ev.Title, counted(len(ev.Steps), "step"))
	case engine.PlanDone:
		return with("done in "+took, summary(ev.Result))
	case engine.PlanFailed:
		return with("FAILED after "+took, summary(ev.Result))
	case engine.StepStarted:
		return with("start", ev.Title)
	case engine.StepProgress:
		return ev.Message
	case engine.StepChanged:
		return changeText(ev.Change)
	case engine.StepUnchanged:
		return with("unchanged", ev.Message)
	case engine.StepDone:
		return with("done in "+took, ev.Message)
	case engine.StepFailed:
		return with("FAILED after "+took, ev.Message)
	case engine.StepCanceled:
		return with("cancelled", ev.Message)
	default:
		return ev.Message
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
