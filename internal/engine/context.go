package engine

import (
	"context"
	"fmt"
	"sync"
)

type scopeKey struct{}

// scope connects a context with the step that runs. It is closed when the step ends: what a goroutine that outlives the
// step still reports is dropped.
type scope struct {
	report func(EventKind, string, *Change)

	mu      sync.Mutex
	closed  bool
	last    string
	changes []Change
}

// Progress reports what the step is doing or waiting for. Outside a step it does nothing. A loop may call it on every
// iteration: a message that equals the last one sends no event.
func Progress(ctx context.Context, format string, args ...any) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok {
		return
	}
	message := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || message == s.last {
		return
	}
	s.last = message
	s.report(StepProgress, message, nil)
}

// Changed records what the step changed. Outside a step it does nothing. The Result counts the changes, so a run can
// report that it changed nothing.
func Changed(ctx context.Context, c Change) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.changes = append(s.changes, c)
	s.report(StepChanged, "", &c)
}

// Tell reports something that stays on screen after the step has ended, unlike Progress. Outside a step it does
// nothing.
func Tell(ctx context.Context, format string, args ...any) {
	s, ok := ctx.Value(scopeKey{}).(*scope)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.report(Note, fmt.Sprintf(format, args...), nil)
	}
}

// close ends the scope and returns the last progress message and the changes.
func (s *scope) close() (last string, changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.last, s.changes
}
