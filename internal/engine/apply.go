package engine

import (
	"context"
	"fmt"

	"ambientlab/internal/problem"
)

// Apply does every step of the plan that is not done yet, and then checks it again: where Do returned nil and Check
// still says no, the step has failed. Independent steps run in parallel. The first failure cancels all other steps. The
// error joins all failures in the order in which they happened, each a *StepError. The Result is complete in every
// case.
func (e *Engine) Apply(ctx context.Context, plan Plan) (Result, error) {
	if err := plan.Validate(); err != nil {
		return Result{Plan: plan.Name}, problem.New(problem.Internal, err, "the plan cannot be run")
	}
	r := e.begin(plan)
	steps, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	walk(plan.forward(), func(i int) {
		if r.attempt(steps, i, do) == Failed {
			cancel(&FailedStep{ID: plan.Steps[i].ID, Title: plan.Steps[i].Title})
		}
	})
	return r.finish(r.failure(ctx))
}

// do is Check, Do, Check.
func do(ctx context.Context, s Step) (Outcome, string, error) {
	if s.Check != nil {
		status, err := s.Check(ctx)
		if err != nil {
			return "", "", fmt.Errorf("checking: %w", err)
		}
		if status.Done {
			return Unchanged, status.Message, nil
		}
		if s.Do == nil {
			return "", "", problem.New(problem.NotReady, nil, "%s", reason(status))
		}
		if status.Message != "" && !status.Planned {
			Progress(ctx, "%s", status.Message)
		}
	}
	if s.Do != nil {
		if err := s.Do(ctx); err != nil {
			return "", "", err
		}
	}
	if s.Check == nil {
		return Done, "", nil
	}
	status, err := s.Check(ctx)
	if err != nil {
		return "", "", fmt.Errorf("checking the result: %w", err)
	}
	if !status.Done {
		return "", "", problem.New(problem.NotReady, nil, "still not done after it was run: %s", reason(status))
	}
	return Done, status.Message, nil
}

func reason(s Status) string {
	if s.Message == "" {
		return "no reason given"
	}
	return s.Message
}

// Undo undoes the plan, each step after all steps that need it. Where a step cannot be undone, the steps that it needs
// stay as well; all other steps are undone.
func (e *Engine) Undo(ctx context.Context, plan Plan) (Result, error) {
	if err := plan.Validate(); err != nil {
		return Result{Plan: plan.Name}, problem.New(problem.Internal, err, "the plan cannot be undone")
	}
	r := e.begin(plan)
	g := plan.forward().backward()
	walk(g, func(i int) {
		if dependent := r.firstNotUndone(g.before[i]); dependent != "" {
			message := fmt.Sprintf("left in place: %q needs it and was not undone", dependent)
			r.settle(i, StepResult{Outcome: Canceled, Message: message})
			return
		}
		r.attempt(ctx, i, undo)
	})
	return r.finish(r.failure(ctx))
}

// firstNotUndone returns the title of the first of the steps that was not undone, or "".
func (r *run) firstNotUndone(steps []int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range steps {
		if res := r.results[i]; res.Outcome == Failed || res.Outcome == Canceled {
			return res.Title
		}
	}
	return ""
}

func undo(ctx context.Context, s Step) (Outcome, string, error) {
	if s.Undo == nil {
		return Unchanged, "nothing to undo", nil
	}
	if err := s.Undo(ctx); err != nil {
		return "", "", err
	}
	return Done, "", nil
}
