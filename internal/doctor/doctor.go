// Package doctor looks at the host and the cluster before they are needed, and says
// what would get in the lab's way. A check is data; it changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"

	"ambientlab/internal/problem"
)

// Verdict is how a check ended.
type Verdict string

// The verdicts. A Warning does not stop the lab; Skipped means that the question
// could not be put, because a check it needs failed or the host does not show it.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
	Skipped Verdict = "skipped"
)

// Check is one question about the host or the cluster.
type Check struct {
	// ID is stable; Category groups checks for people, Title states what should hold.
	ID, Category, Title string
	// Needs names the check without which this one makes no sense.
	Needs string
	// Run gives what was seen. A problem as the error is a failure, or a warning where
	// Warn wraps it; ErrHidden wrapped in it says that the host does not show it.
	Run func(ctx context.Context) (seen string, err error)
}

// Result is a check with its answer.
type Result struct {
	ID       string   `json:"id"`
	Category string   `json:"category"`
	Title    string   `json:"title"`
	Verdict  Verdict  `json:"verdict"`
	Seen     string   `json:"seen,omitempty"`
	Problem  string   `json:"problem,omitempty"` // a stable ID of the catalogue
	Advice   []string `json:"advice,omitempty"`
	// Err is the failure as it was returned.
	Err error `json:"-"`
}

// ErrHidden says that this host does not show what a check asks for: another
// operating system, or an engine on another machine.
var ErrHidden = errors.New("not visible from here")

type warning struct{ error }

func (w warning) Unwrap() error { return w.error }

// Warn makes a failure a warning.
func Warn(err error) error { return warning{err} }

// Run puts the checks in order and hands each result to observe as it comes. Its
// error joins the failures, so its exit code is that of the first.
func Run(ctx context.Context, checks []Check, observe func(Result)) ([]Result, error) {
	verdicts := make(map[string]Verdict)
	var results []Result
	var failures []error
	for _, c := range checks {
		if err := ctx.Err(); err != nil {
			return results, fmt.Errorf("checking: %w", context.Cause(ctx))
		}
		r := answer(ctx, c, verdicts)
		verdicts[c.ID] = r.Verdict
		results = append(results, r)
		if observe != nil {
			observe(r)
		}
		if r.Verdict == Failure {
			failures = append(failures, fmt.Errorf("%s: %w", c.Title, r.Err))
		}
	}
	return results, errors.Join(failures...)
}

func answer(ctx context.Context, c Check, verdicts map[string]Verdict) Result {
	r := Result{ID: c.ID, Category: c.Category, Title: c.Title, Verdict: OK}
	if v := verdicts[c.Needs]; c.Needs != "" && (v == Failure || v == Skipped) {
		r.Verdict, r.Seen = Skipped, fmt.Sprintf("needs %s", c.Needs)
		return r
	}
	seen, err := c.Run(ctx)
	r.Seen = seen
	if err == nil {
		return r
	}
	r.Err, r.Verdict = err, Failure
	var w warning
	switch {
	case errors.Is(err, ErrHidden):
		r.Verdict = Skipped
	case errors.As(err, &w):
		r.Verdict = Warning
	}
	if r.Seen == "" {
		r.Seen = err.Error()
	}
	var p *problem.Problem
	if errors.As(err, &p) {
		r.Problem, r.Advice = p.ID, p.Advice
	}
	return r
}
