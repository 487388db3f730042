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

// FailedStep is the cause with which the engine cancels the other steps of a plan when one has failed. It does not wrap
// the failure: otherwise a cancelled step whose error wraps its context's cause would look like the one that failed.
type FailedStep struct{ ID, Title string }

// Error says which step failed. Why is in that step's own error.
func (e *FailedStep) Error() string { return fmt.Sprintf("%q failed", e.Title) }

// Timeout is the cause of a step's context when its time is up.
type Timeout struct{ Limit time.Duration }

// Error says how long the step had.
func (e *Timeout) Error() string { return fmt.Sprintf("not finished within %s", e.Limit) }

// Is makes a Timeout count as context.DeadlineExceeded.
func (e *Timeout) Is(target error) bool { return target == context.DeadlineExceeded }

// isCancellation says whether err only reports that a context ended. Some libraries turn the context's error into text
// (client-go's rate limiter, rest/request.go), so the text is compared too. A step that failed for another reason while
// it was cancelled is a failure. So is one that names what it was waiting for when the time of the whole run was up:
// that error wraps the context's cause too, and says more than that the time is up.
func isCancellation(ctx context.Context, err error) bool {
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) && diagnosed(err) {
		return false
	}
	return errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) ||
		strings.Contains(err.Error(), ctx.Err().Error())
}

// diagnosed says whether err names a problem with a known cause: more than that something took too long or was
// interrupted.
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

// outOfTime adds to the error of a step whose time is up what the step was waiting for.
func outOfTime(limit *Timeout, last string, err error) error {
	seen := limit.Error()
	if last != "" {
		seen += "; it was waiting for: " + last
	}
	if onlyDeadline(err) {
		return problem.New(problem.OutOfTime, nil, "%s", seen)
	}
	if len(problem.All(err)) > 0 {
		return fmt.Errorf("%w (%s)", err, seen)
	}
	return problem.New(problem.OutOfTime, err, "%s", seen)
}

// onlyDeadline says whether err reports nothing but that the time is up.
func onlyDeadline(err error) bool {
	var limit *Timeout
	return err == nil || err == context.DeadlineExceeded || (errors.As(err, &limit) && err.Error() == limit.Error())
}

// ended makes an error of the end of the caller's context: the cause where it is a problem, otherwise OutOfTime or
// Interrupted. running lists what the cancelled steps were doing.
func ended(ctx context.Context, plan string, running []string) error {
	cause := context.Cause(ctx)
	var doing string
	if len(running) > 0 {
		doing = "; it was running: " + strings.Join(running, "; ")
	}
	if len(problem.All(cause)) > 0 {
		return fmt.Errorf("%s%s: %w", plan, doing, cause)
	}
	kind := problem.Interrupted
	if errors.Is(cause, context.DeadlineExceeded) {
		kind = problem.OutOfTime
	}
	return problem.New(kind, cause, "%s was stopped before its end%s", plan, doing)
}
