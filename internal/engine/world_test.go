package engine_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ambientlab/internal/engine"
)

// recorder is a Sink that keeps one line per event.
type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Handle(ev engine.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := string(ev.Kind)
	for _, part := range []string{ev.Step, ev.Message} {
		if part != "" {
			line += " " + part
		}
	}
	if ev.Change != nil {
		line += " " + ev.Change.Action + " " + ev.Change.Object
	}
	if ev.Duration > 0 {
		line += " " + ev.Duration.String()
	}
	r.lines = append(r.lines, line)
}

// world is what steps look at and change.
type world struct {
	mu   sync.Mutex
	done map[string]bool
	log  []string
}

func newWorld(done ...string) *world {
	w := &world{done: map[string]bool{}}
	for _, id := range done {
		w.done[id] = true
	}
	return w
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// step takes some time to be done, heeds its context, and is done afterwards.
func (w *world) step(id string, takes time.Duration, needs ...string) engine.Step {
	return engine.Step{
		ID: id, Title: strings.ToUpper(id), Needs: needs,
		Check: func(context.Context) (engine.Status, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return engine.Status{Done: w.done[id]}, nil
		},
		Do: func(ctx context.Context) error {
			if err := pause(ctx, takes); err != nil {
				return err
			}
			w.note("do %s", id)
			w.mu.Lock()
			w.done[id] = true
			w.mu.Unlock()
			engine.Changed(ctx, engine.Change{Object: id, Action: engine.Create})
			return nil
		},
		Undo: func(context.Context) error {
			w.note("undo %s", id)
			w.mu.Lock()
			w.done[id] = false
			w.mu.Unlock()
			return nil
		},
	}
}

// pause waits in the bubble's fake time.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func plan(steps ...engine.Step) engine.Plan {
	return engine.Plan{Name: "p", Title: "Plan", Steps: steps}
}

func want(t *testing.T, what string, got, wanted any) {
	t.Helper()
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
