package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"ambientlab/internal/problem"
)

// Preview says for every step, in the plan's order, whether it holds, what it would
// change and which commands have the same effect. It changes nothing and sends no
// events. A step that cannot be looked at because one it needs does not hold yet is
// Blocked, which is no error; other errors stand in the step's Err. The error is for
// a plan that cannot be run and for a context that ended.
func (e *Engine) Preview(ctx context.Context, plan Plan) ([]Preview, error) {
	if err := plan.Validate(); err != nil {
		return nil, problem.New(problem.Internal, err, "the plan cannot be run")
	}
	found := e.look(ctx, plan, true)
	if ctx.Err() != nil {
		return found, ended(ctx, plan.Name, nil)
	}
	return found, nil
}

// Inspect says for every step, in the plan's order, whether it holds. It changes
// nothing and sends no events. A plan that is not valid gives one entry with the
// error.
func (e *Engine) Inspect(ctx context.Context, plan Plan) []StepStatus {
	if err := plan.Validate(); err != nil {
		return []StepStatus{{Title: plan.Title, Err: problem.New(problem.Internal, err, "the plan cannot be run")}}
	}
	var statuses []StepStatus
	for _, p := range e.look(ctx, plan, false) {
		statuses = append(statuses, StepStatus{ID: p.ID, Title: p.Title, Status: p.Status, Blocked: p.Blocked, Err: p.Err})
	}
	return statuses
}

// look checks every step after those it needs, so that it knows which of them hold.
func (e *Engine) look(ctx context.Context, plan Plan, preview bool) []Preview {
	quiet := &run{engine: &Engine{Grace: e.Grace, Clock: e.Clock}, plan: plan}
	found := make([]Preview, len(plan.Steps))
	var mu sync.Mutex
	g := plan.forward()
	walk(g, e.Parallel, func(i int) {
		mu.Lock()
		missing := ""
		for _, need := range g.before[i] {
			if n := found[need]; missing == "" && !n.Status.Holds {
				missing = n.Title
			}
		}
		mu.Unlock()
		p := quiet.lookAt(ctx, plan.Steps[i], missing, preview)
		mu.Lock()
		found[i] = p
		mu.Unlock()
	})
	return found
}

// lookAt looks at one step; missing is the title of a step it needs that does not
// hold, or empty.
func (r *run) lookAt(ctx context.Context, s Step, missing string, preview bool) Preview {
	p := Preview{ID: s.ID, Title: s.Title, Needs: slices.Clone(s.Needs)}
	if preview && s.Explain != nil {
		p.Explain = s.Explain()
	}
	limited, cancel := withLimit(ctx, s.Timeout)
	defer cancel()
	// The results are carried out of the goroutine by a value of its own, for one that
	// is left behind may still write to it.
	type sight struct {
		status  Status
		changes []Change
	}
	seen := make(chan sight, 1)
	p.Err = r.call(limited, func() error {
		var now sight
		defer func() { seen <- now }()
		if s.Check == nil {
			now.status.Message = "cannot be checked: it is done every time"
		} else {
			status, err := s.Check(limited)
			if err != nil {
				return fmt.Errorf("checking %s: %w", s.Title, err)
			}
			now.status = status
		}
		if !preview || now.status.Holds || s.Preview == nil {
			return nil
		}
		changes, err := s.Preview(limited)
		if err != nil {
			return fmt.Errorf("previewing %s: %w", s.Title, err)
		}
		now.changes = changes
		return nil
	})
	select {
	case now := <-seen:
		p.Status, p.Changes = now.status, now.changes
	default:
	}
	if p.Err != nil && missing != "" {
		p.Status = Status{Message: fmt.Sprintf("comes after %q, which does not hold yet", missing)}
		p.Blocked, p.Err = true, nil
	}
	return p
}

// Changes lists what the run changed, step by step.
func (r Result) Changes() []Change {
	var all []Change
	for _, s := range r.Steps {
		all = append(all, s.Changes...)
	}
	return all
}

// Count says how many steps ended with an outcome.
func (r Result) Count(o Outcome) int {
	n := 0
	for _, s := range r.Steps {
		if s.Outcome == o {
			n++
		}
	}
	return n
}
