package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Apply runs a plan within the deadline of the whole target.
func (s *Session) Apply(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, why := s.whileProcessesRun(ctx)
	result, err := s.ApplyWithoutLab(ctx, plan)
	return result, s.withStopped(why(err))
}

// ApplyWithoutLab runs a plan that needs no lab, within the deadline of the whole target.
func (e *Env) ApplyWithoutLab(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, cancel := e.Deadline(ctx)
	defer cancel()
	return e.engine().Apply(ctx, plan.Decorate(whileRestarting))
}

// Undo undoes a plan within the deadline of the whole target.
func (s *Session) Undo(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, cancel := s.Deadline(ctx)
	defer cancel()
	result, err := s.engine().Undo(ctx, plan.Decorate(whileRestarting))
	return result, s.withStopped(err)
}

// Inspect says for every step of a plan whether it is done.
func (s *Session) Inspect(ctx context.Context, plan engine.Plan) []engine.StepStatus {
	return s.engine().Inspect(ctx, plan)
}

// Preview says for every step of a plan what it would change.
func (s *Session) Preview(ctx context.Context, plan engine.Plan) ([]engine.Preview, error) {
	return s.engine().Preview(ctx, plan)
}

func (e *Env) engine() *engine.Engine { return &engine.Engine{Sink: e.sink} }

// Deadline bounds a target by SM_TIMEOUT.
func (e *Env) Deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := e.Settings.Timeout
	return context.WithTimeoutCause(ctx, limit,
		overdue(fmt.Sprintf("the target took longer than SM_TIMEOUT allows (%s)", limit)))
}

// WorkDeadline bounds the work of sm:run: SM_TIMEOUT less SM_RESERVE.
func (e *Env) WorkDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	reserve := e.Settings.Reserve
	limit := e.Settings.Timeout - reserve
	return context.WithTimeoutCause(ctx, limit, overdue(
		fmt.Sprintf("the work took longer than %s, which is SM_TIMEOUT less SM_RESERVE (%s)", limit, reserve)))
}

// overdue is the cause of a context whose time is up. It counts as context.DeadlineExceeded, which tells a target that
// was too slow from one that was interrupted.
type overdue string

func (o overdue) Error() string { return string(o) }

func (overdue) Is(target error) bool { return target == context.DeadlineExceeded }

// restartPatience is how long an API server may take to answer again after it went away, on a loaded laptop.
const restartPatience = 90 * time.Second

// whileRestarting makes a step wait while the API server restarts: that may happen in the middle of any step, between
// two of its requests, and a step is safe to run again. A preview or a status does not wait: it reports that the API
// server does not answer.
func whileRestarting(step engine.Step) engine.Step {
	if check := step.Check; check != nil {
		step.Check = func(ctx context.Context) (status engine.Status, err error) {
			err = apply.Retry(ctx, restartPatience, func(ctx context.Context) error {
				status, err = check(ctx)
				return err
			})
			return status, err
		}
	}
	step.Do, step.Undo = retried(step.Do), retried(step.Undo)
	return step
}

func retried(f func(context.Context) error) func(context.Context) error {
	if f == nil {
		return nil
	}
	return func(ctx context.Context) error { return apply.Retry(ctx, restartPatience, f) }
}

// withStopped adds to the failure of a run the processes of this machine that have ended, with the last lines of their
// logs: that is most often the cause, and the failure may not name it.
func (s *Session) withStopped(err error) error {
	runner, ok := s.provider.(cluster.ProcessRunner)
	if err == nil || !ok || problem.Is(err, problem.Interrupted) {
		return err
	}
	var stopped []string
	for _, description := range runner.Stopped() {
		if _, quoted, _ := strings.Cut(description, "\n"); quoted == "" || !strings.Contains(err.Error(), quoted) {
			stopped = append(stopped, description)
		}
	}
	if len(stopped) == 0 {
		return err
	}
	return errors.Join(err, problem.New(problem.ClusterStopped, nil, "%s", strings.Join(stopped, "; ")))
}
