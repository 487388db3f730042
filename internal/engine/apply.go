package engine

import (
	"context"
	"fmt"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"

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
	if plan.LookFirst && r.nothingToDo(ctx) {
		return r.finish(r.failure(ctx))
	}
	steps, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	walk(r.graph, r.progress, func(i int) {
		if r.attempt(steps, i, do) == Failed {
			cancel(&FailedStep{ID: plan.Steps[i].ID, Title: plan.Steps[i].Title})
		}
	})
	return r.finish(r.failure(ctx))
}

// nothingToDo checks every step, all at once, and settles them as unchanged where all are done. The steps that need no
// others, and those with milestones, are checked before: where one of them is not done, the others need not be asked.
func (r *run) nothingToDo(ctx context.Context) bool {
	found := make([]StepResult, len(r.plan.Steps))
	look := func(first bool) bool {
		var done atomic.Bool
		done.Store(true)
		var looking sync.WaitGroup
		for i, s := range r.plan.Steps {
			if (len(s.Needs) == 0 || len(s.Milestones) > 0) != first {
				continue
			}
			looking.Go(func() {
				began := time.Now()
				var p Preview
				pprof.Do(ctx, r.label(s), func(ctx context.Context) { p = inspectStep(ctx, s, "", false) })
				if p.Err != nil || !p.Status.Done {
					done.Store(false)
				}
				found[i] = StepResult{Outcome: Unchanged, Message: p.Status.Message, Duration: time.Since(began)}
			})
		}
		looking.Wait()
		return done.Load()
	}
	if !look(true) || !look(false) || ctx.Err() != nil {
		return false
	}
	for i, s := range r.plan.Steps {
		r.emit(Event{Kind: StepStarted, Step: s.ID, Title: s.Title})
		r.settle(i, found[i])
	}
	return true
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
	r.graph = r.graph.backward()
	walk(r.graph, r.progress, func(i int) {
		if dependent := r.firstNotDone(r.graph.before[i]); dependent != "" {
			message := fmt.Sprintf("left in place: %q needs it and was not undone", dependent)
			r.settle(i, StepResult{Outcome: Canceled, Message: message})
			return
		}
		r.attempt(ctx, i, undo)
	})
	return r.finish(r.failure(ctx))
}

// firstNotDone returns the title of the first of the steps that was not done, or not undone, or "".
func (r *run) firstNotDone(steps []int) string {
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
