package engine

import (
	"context"
	"fmt"

	"ambientlab/internal/problem"
)

// Apply makes every step of the plan hold. A step that already does is left alone; one
// that does not is done and then checked again, for a Do that returns nil while its
// Check still says no has not worked. Independent steps run side by side. The first
// failure cancels all other steps; every failure is reported, joined in the order
// it happened, each a *StepError. The Result is complete in every case.
func (e *Engine) Apply(ctx context.Context, plan Plan) (Result, error) {
	if err := plan.Validate(); err != nil {
		return Result{Plan: plan.Name}, problem.New(problem.Internal, err, "the plan cannot be run")
	}
	r := e.begin(plan)
	steps, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	walk(plan.forward(), e.Parallel, func(i int) {
		if r.attempt(steps, i, ensure) == Failed {
			cancel(&FailedStep{ID: plan.Steps[i].ID, Title: plan.Steps[i].Title})
		}
	})
	return r.finish(r.failure(ctx))
}

// ensure is Check, Do, Check.
func ensure(ctx context.Context, s Step) (Outcome, string, error) {
	if s.Check != nil {
		status, err := s.Check(ctx)
		if err != nil {
			return "", "", fmt.Errorf("checking: %w", err)
		}
		if status.Holds {
			return Held, status.Message, nil
		}
		if s.Do == nil {
			return "", "", problem.New(problem.NotReady, nil, "%s", reason(status))
		}
		if status.Message != "" {
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
		return "", "", fmt.Errorf("checking after it was done: %w", err)
	}
	if !status.Holds {
		return "", "", problem.New(problem.NotReady, nil, "done, but it does not hold: %s", reason(status))
	}
	return Done, status.Message, nil
}

func reason(s Status) string {
	if s.Message == "" {
		return "no reason given"
	}
	return s.Message
}

// Undo takes the plan back, each step after all steps that need it. A step that
// cannot be taken back keeps those it needs in place, because they still carry it;
// steps that do not depend on it are taken back all the same.
func (e *Engine) Undo(ctx context.Context, plan Plan) (Result, error) {
	if err := plan.Validate(); err != nil {
		return Result{Plan: plan.Name}, problem.New(problem.Internal, err, "the plan cannot be undone")
	}
	r := e.begin(plan)
	g := plan.forward().backward()
	walk(g, e.Parallel, func(i int) {
		if by := r.carriedBy(g.before[i]); by != "" {
			r.settle(i, StepResult{Outcome: Canceled, Message: fmt.Sprintf("left in place: %q still builds on it", by)})
			return
		}
		r.attempt(ctx, i, takeBack)
	})
	return r.finish(r.failure(ctx))
}

// carriedBy gives the title of the first of the steps that was not taken back.
func (r *run) carriedBy(steps []int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range steps {
		if res := r.results[i]; res.Outcome == Failed || res.Outcome == Canceled {
			return res.Title
		}
	}
	return ""
}

func takeBack(ctx context.Context, s Step) (Outcome, string, error) {
	if s.Undo == nil {
		return Held, "nothing to take back", nil
	}
	if err := s.Undo(ctx); err != nil {
		return "", "", err
	}
	return Done, "", nil
}
