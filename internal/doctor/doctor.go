// Package doctor checks the host and the cluster for problems that are known to break a lab. A check is data and
// changes nothing.
package doctor

import (
	"context"
	"errors"
	"fmt"

	"ambientlab/internal/problem"
)

// Verdict is the result of a check.
type Verdict string

// The verdicts. A Warning does not prevent a lab. Skipped means that the check could not be made, because a check that
// it needs failed or because the host does not show the facts.
const (
	OK      Verdict = "ok"
	Warning Verdict = "warning"
	Failure Verdict = "failure"
	Skipped Verdict = "skipped"
)

// Check is a check of the host or the cluster.
type Check struct {
	// ID never changes, Category groups checks for people, Title says what should be true.
	ID, Category, Title string
	// Needs is the ID of the check that must not fail before this one, or empty.
	Needs string
	// Run returns what was observed. An error is a failure, or a warning if it was made by Warn. An error that wraps
	// ErrHidden means that the host does not show the facts.
	Run func(ctx context.Context) (seen string, err error)
}

// Result is the result of a check.
type Result struct {
	ID       string   `json:"id"`
	Category string   `json:"category"`
	Title    string   `json:"title"`
	Verdict  Verdict  `json:"verdict"`
	Seen     string   `json:"seen,omitempty"`
	Problem  string   `json:"problem,omitempty"` // the ID of a problem.Kind
	Advice   []string `json:"advice,omitempty"`
	// Err is the error that Run returned.
	Err error `json:"-"`
}

// ErrHidden is the error of a check that cannot see the facts from this host, because of the operating system or
// because the Docker engine runs on another machine.
var ErrHidden = errors.New("not visible from here")

type warning struct{ error }

func (w warning) Unwrap() error { return w.error }

// Warn turns a failure into a warning.
func Warn(err error) error { return warning{err} }

// Run runs the checks in order and passes each result to observe, which may be nil. Its error joins the failures, so
// its exit code is that of the first failure; warnings are not errors.
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
		r.Verdict, r.Seen = Skipped, fmt.Sprintf("needs the check %s", c.Needs)
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
