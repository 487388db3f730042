package lab

import (
	"context"
	"time"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
)

// restartPatience is how long an API server that has just gone may take to come back, on a loaded laptop.
const restartPatience = 90 * time.Second

// steady makes the steps of a run wait while the API server restarts: that may happen in the middle of any step, between
// two of its requests, and a step is safe to run again. A preview or a status does not wait: it reports that the API
// server does not answer.
func steady(step engine.Step) engine.Step {
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
	return step
}

func again(f func(context.Context) error) func(context.Context) error {
	if f == nil {
		return nil
	}
	return func(ctx context.Context) error { return apply.Retry(ctx, restartPatience, f) }
}
