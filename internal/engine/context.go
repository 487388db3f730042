package engine

import (
	"context"
	"fmt"
	"sync"
)

type scopeKey struct{}

// scope ties a context to the step in hand. It is closed when the step ends, so that
// what a late goroutine still says is dropped instead of appearing under a step that
// is over.
type scope struct {
	report func(EventKind, string, *Change)

	mu      sync.Mutex
	closed  bool
	last    string
	changes []Change
}

// Progress tells what the step in hand is doing or waiting for. Outside a step it does
// nothing. Saying the same thing again is free: only what is new becomes an event,
// so a loop may call it on every turn.
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

// Changed records what the step in hand really changed. Outside a step it does
// nothing. The changes are counted in the Result, so a run that changed nothing can
// say so.
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

// Tell says something that people should still be able to read when the step is over, where Progress only says what
// is going on. Outside a step it does nothing.
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

// close ends the scope and gives what was said last and what was changed.
func (s *scope) close() (last string, changes []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return s.last, s.changes
}
