package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/problem"
)

// StepError is the failure of one step. Its text names the step by its title.
type StepError struct {
	ID, Title string
	Err       error
}

// Error gives the step's title and the reason.
func (e *StepError) Error() string { return fmt.Sprintf("%s: %v", e.Title, e.Err) }

// Unwrap gives the reason.
func (e *StepError) Unwrap() error { return e.Err }

// FailedStep is the cause with which the engine cancels the other steps of a plan when
// one has failed. It does not wrap the failure: a cancelled step whose error carries
// its context's cause must not be taken for the one that failed.
type FailedStep struct{ ID, Title string }

// Error says which step failed; why is said once, by that step itself.
func (e *FailedStep) Error() string { return fmt.Sprintf("%q failed", e.Title) }

// Timeout is the cause of a step's context when its time is up.
type Timeout struct{ Limit time.Duration }

// Error says how long the step had.
func (e *Timeout) Error() string { return fmt.Sprintf("not finished within %s", e.Limit) }

// Is makes a Timeout count as context.DeadlineExceeded.
func (e *Timeout) Is(target error) bool { return target == context.DeadlineExceeded }

// isCancellation tells whether err is only the echo of a context that ended. Some
// libraries flatten the context's error to text (client-go's rate limiter does), so
// the text is looked at too; a step that failed for a reason of its own while being
// cancelled is still a failure. So is one that could say what it was waiting for when
// the time of the whole run was up: that diagnosis carries the context's cause too, and
// is worth more than the remark that the time is up.
func isCancellation(ctx context.Context, err error) bool {
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) && diagnosed(err) {
		return false
	}
	return errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) ||
		strings.Contains(err.Error(), ctx.Err().Error())
}

// diagnosed tells whether err names a problem with a cause of its own: more than that
// something took too long, or was called off.
func diagnosed(err error) bool {
	for _, p := range problem.All(err) {
		switch p.ID {
		case problem.OutOfTime.ID, problem.Interrupted.ID, problem.NotReady.ID:
		default:
			return true
		}
	}
	return false
}

// outOfTime dresses an error of a step whose time is up, so that "timed out" never
// stands alone: it says what was being waited for.
func outOfTime(limit *Timeout, last string, err error) error {
	seen := limit.Error()
	if last != "" {
		seen += "; it was at: " + last
	}
	if onlyDeadline(err) {
		return problem.New(problem.OutOfTime, nil, "%s", seen)
	}
	if len(problem.All(err)) > 0 {
		return fmt.Errorf("%w (%s)", err, seen)
	}
	return problem.New(problem.OutOfTime, err, "%s", seen)
}

// onlyDeadline tells whether err says nothing beyond that the time is up.
func onlyDeadline(err error) bool {
	var limit *Timeout
	return err == nil || err == context.DeadlineExceeded || (errors.As(err, &limit) && err.Error() == limit.Error())
}

// ended turns the end of the caller's context into an error: the cause itself where
// it is a problem, and otherwise the problem that fits. inHand lists what the
// cancelled steps were doing.
func ended(ctx context.Context, plan string, inHand []string) error {
	cause := context.Cause(ctx)
	var doing string
	if len(inHand) > 0 {
		doing = "; in hand: " + strings.Join(inHand, "; ")
	}
	if len(problem.All(cause)) > 0 {
		return fmt.Errorf("%s%s: %w", plan, doing, cause)
	}
	kind := problem.Interrupted
	if errors.Is(cause, context.DeadlineExceeded) {
		kind = problem.OutOfTime
	}
	return problem.New(kind, cause, "%s stopped before its end%s", plan, doing)
}
