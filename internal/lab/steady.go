package lab

import (
	"context"
	"time"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
)

// restartPatience is how long an API server that has just gone may take to come back, on a loaded laptop.
const restartPatience = 90 * time.Second

// steady makes the steps of a run sit out a restart of the API server: it may come in the middle of any step, between
// two of its requests, and what a step does is safe to begin again. Looking at a plan without running it does not wait:
// whoever asks for the status of a dead cluster wants to hear that it is dead.
func steady(plan engine.Plan) engine.Plan {
	steps := make([]engine.Step, 0, len(plan.Steps))
	for _, step := range plan.Steps {
		if check := step.Check; check != nil {
			step.Check = func(ctx context.Context) (status engine.Status, err error) {
				err = apply.Retry(ctx, restartPatience, func(ctx context.Context) error {
					status, err = check(ctx)
					return err
				})
				return status, err
			}
		}
		step.Do, step.Undo = again(step.Do), again(step.Undo)
		steps = append(steps, step)
	}
	plan.Steps = steps
	return plan
}

func again(f func(context.Context) error) func(context.Context) error {
	if f == nil {
		return nil
	}
	return func(ctx context.Context) error { return apply.Retry(ctx, restartPatience, f) }
}
