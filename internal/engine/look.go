package engine

import (
	"context"
	"fmt"
	"sync"

	"ambientlab/internal/problem"
)

// Preview returns for every step, in the plan's order, whether it is done, what it would change and which commands have
// the same effect. It changes nothing and sends no events. A step that cannot be checked because a step that it needs
// is not done is Blocked, which is no error; other errors are in the step's Err. The error is for a plan that is not
// valid and for a context that ended.
func (e *Engine) Preview(ctx context.Context, plan Plan) ([]Preview, error) {
	if err := plan.Validate(); err != nil {
		return nil, problem.New(problem.Internal, err, "the plan cannot be run")
	}
	found := inspect(ctx, plan, true)
	if ctx.Err() != nil {
		return found, ended(ctx, plan.Name, nil)
	}
	return found, nil
}

// Inspect returns for every step, in the plan's order, whether it is done. It changes nothing and sends no events. A
// plan that is not valid gives one entry with the error.
func (e *Engine) Inspect(ctx context.Context, plan Plan) []StepStatus {
	if err := plan.Validate(); err != nil {
		return []StepStatus{{Title: plan.Title, Err: problem.New(problem.Internal, err, "the plan cannot be run")}}
	}
	var statuses []StepStatus
	for _, p := range inspect(ctx, plan, false) {
		statuses = append(statuses, StepStatus{p.ID, p.Title, p.Status, p.Blocked, p.Err})
	}
	return statuses
}

// inspect checks every step after those that it needs, so that it knows which of them are done.
func inspect(ctx context.Context, plan Plan, preview bool) []Preview {
	found := make([]Preview, len(plan.Steps))
	var mu sync.Mutex
	g := plan.forward()
	walk(g, newProgress(len(plan.Steps)), func(i int) {
		mu.Lock()
		missing := ""
		for _, need := range g.before[i] {
			if n := found[need]; missing == "" && !n.Status.Done {
				missing = n.Title
			}
		}
		mu.Unlock()
		p := inspectStep(ctx, plan.Steps[i], missing, preview)
		mu.Lock()
		found[i] = p
		mu.Unlock()
	})
	return found
}

// inspectStep checks one step; missing is the title of a step that it needs and that is not done, or empty.
func inspectStep(ctx context.Context, s Step, missing string, preview bool) Preview {
	p := Preview{ID: s.ID, Title: s.Title, Needs: s.neededSteps()}
	if preview && s.Explain != nil {
		p.Explain = s.Explain()
	}
	limited, cancel := withLimit(ctx, s.Timeout)
	defer cancel()
	// The goroutine returns its findings through a channel: a step that outlives its context may still write to them.
	type findings struct {
		status  Status
		changes []Change
	}
	seen := make(chan findings, 1)
	p.Err = call(limited, func() error {
		var now findings
		defer func() { seen <- now }()
		if s.Check == nil {
			now.status.Message = "cannot be checked: it is done in every run"
		} else {
			status, err := s.Check(limited)
			if err != nil {
				return fmt.Errorf("checking %s: %w", s.Title, err)
			}
			now.status = status
		}
		if !preview || now.status.Done || s.Preview == nil {
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
		p.Status = Status{Message: fmt.Sprintf("needs %q, which is not done yet", missing)}
		p.Blocked, p.Err = true, nil
	}
	return p
}

// Changes lists what the run changed, in the order of its steps.
func (r Result) Changes() []Change {
	var all []Change
	for _, s := range r.Steps {
		all = append(all, s.Changes...)
	}
	return all
}

// Count returns how many steps ended with an outcome.
func (r Result) Count(o Outcome) int {
	n := 0
	for _, s := range r.Steps {
		if s.Outcome == o {
			n++
		}
	}
	return n
}
