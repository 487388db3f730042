package engine

import (
	"context"
	"fmt"
	"sync"
	"time"
)

type scopeKey struct{}

// scope connects a context with the step that runs. It is closed when the step ends: what a goroutine that outlives the
// step still reports is dropped.
type scope struct {
	report  func(EventKind, string, *Change)
	reached func(milestone string)

	mu      sync.Mutex
	closed  bool
	last    string
	changes []Change
	waits   int // how many waits are in progress
	since   time.Time
	waited  time.Duration
}

// inStep runs report with the scope of the step whose context this is. Outside a step, and when the step has ended, it
// does nothing.
func inStep(ctx context.Context, report func(*scope)) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		report(s)
	}
}

// Progress reports what the step is doing or waiting for. Outside a step it does nothing. A loop may call it on every
// iteration: a message that equals the last one sends no event.
func Progress(ctx context.Context, format string, args ...any) {
	inStep(ctx, func(s *scope) {
		if message := fmt.Sprintf(format, args...); message != s.last {
			s.last = message
			s.report(StepProgress, message, nil)
		}
	})
}

// Changed records what the step changed. Outside a step it does nothing. The Result counts the changes, so a run can
// report that it changed nothing.
func Changed(ctx context.Context, c Change) {
	inStep(ctx, func(s *scope) {
		s.changes = append(s.changes, c)
		s.report(StepChanged, "", &c)
	})
}

// Tell reports something that stays on screen after the step has ended, unlike Progress. Outside a step it does
// nothing.
func Tell(ctx context.Context, format string, args ...any) {
	inStep(ctx, func(s *scope) { s.report(Note, fmt.Sprintf(format, args...), nil) })
}

// Reached reports that the step has reached one of its Milestones: the steps that need no more of it may start. Outside
// a step, and for a milestone that was reached before, it does nothing.
func Reached(ctx context.Context, milestone string) {
	inStep(ctx, func(s *scope) { s.reached(milestone) })
}

// Waiting notes that the step waits for something that happens without it, such as a pod that starts, until the
// function that it returns is called. Outside a step it does nothing.
func Waiting(ctx context.Context) (done func()) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok {
		return func() {}
	}
	s.wait(1)
	return func() { s.wait(-1) }
}

// wait counts the waits of the step up or down. The step waits while there is one.
func (s *scope) wait(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if s.waits == 0 {
		s.since = time.Now()
	}
	if s.waits += n; s.waits == 0 {
		s.waited += time.Since(s.since)
	}
}

// close ends the scope and returns the last progress message, the changes, and how long the step waited.
func (s *scope) close() (last string, changes []Change, waited time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.waits > 0 {
		s.waited += time.Since(s.since)
	}
	return s.last, s.changes, s.waited
}
