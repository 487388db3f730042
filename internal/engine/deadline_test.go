package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// late is the cause of a run's deadline, as a caller writes one.
type late struct{}

func (late) Error() string        { return "the target took too long" }
func (late) Is(target error) bool { return target == context.DeadlineExceeded }

// What a step found out about itself outlives the deadline of the whole run, although it carries the deadline as its
// cause; what only took too long does not, and an interruption is only that.
func TestDeadlineKeepsTheDiagnosis(t *testing.T) {
	waits := func(id string, kind problem.Kind) engine.Step {
		return engine.Step{ID: id, Title: id, Do: func(ctx context.Context) error {
			<-ctx.Done()
			return fmt.Errorf("waiting: %w", problem.New(kind, context.Cause(ctx), "Deployment %s", id))
		}}
	}
	steps := plan(waits("slow", problem.NotReady), waits("image", problem.ImagePull))
	for name, tc := range map[string]struct {
		plan engine.Plan
		end  func(context.Context) (context.Context, context.CancelFunc)
		want []string // the first one gives the exit code
	}{
		"deadline":         {steps, atDeadline, []string{"LAB-IMAGE-PULL", "LAB-OUT-OF-TIME"}},
		"nothing but slow": {plan(waits("slow", problem.NotReady)), atDeadline, []string{"LAB-OUT-OF-TIME"}},
		"interrupted":      {steps, atSignal, []string{"LAB-INTERRUPTED"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := tc.end(t.Context())
				defer cancel()
				e := engine.Engine{}
				_, err := e.Apply(ctx, tc.plan)
				var got []string
				for _, p := range problem.All(err) {
					got = append(got, p.ID)
				}
				want(t, "problems", got, tc.want)
			})
		})
	}
}

// At a deadline the failure with a known cause is the first one, and gives the exit code, even where it ended last.
func TestKnownCausesComeFirstAtADeadline(t *testing.T) {
	fails := func(id string, after time.Duration, err error) engine.Step {
		return engine.Step{ID: id, Title: id, Do: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(after) // in the fake time of synctest
			return err
		}}
	}
	full := errors.New("disk full")
	pull := problem.New(problem.ImagePull, nil, "no such image")
	lost := errors.New("connection lost")
	for name, tc := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		want string
	}{
		"deadline":    {atDeadline, "pull: no such image [LAB-IMAGE-PULL]\nfull: disk full\nlost: connection lost"},
		"interrupted": {atSignal, "full: disk full\npull: no such image [LAB-IMAGE-PULL]\nlost: connection lost"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := tc.end(t.Context())
				defer cancel()
				e := engine.Engine{}
				_, err := e.Apply(ctx, plan(
					fails("lost", 3*time.Second, lost), fails("pull", 2*time.Second, pull),
					fails("full", time.Second, full),
				))
				want(t, "order of the failures", fmt.Sprint(err), tc.want)
			})
		})
	}
}

func atDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, time.Minute, late{})
}

func atSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(time.Minute, func() { cancel(errors.New("interrupt signal received")) })
	return ctx, func() { cancel(nil) }
}

// Code below a step sees a deadline where the time limit of the step was the cause.
func TestTimeoutIsADeadline(t *testing.T) {
	limit := error(&engine.Timeout{Limit: time.Second})
	if !errors.Is(limit, context.DeadlineExceeded) {
		t.Errorf("%v is no context.DeadlineExceeded", limit)
	}
	if errors.Is(limit, context.Canceled) {
		t.Errorf("%v is a context.Canceled", limit)
	}
}
