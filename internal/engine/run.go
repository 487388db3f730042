package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"time"

	"ambientlab/internal/problem"
)

// run is one execution of a plan.
type run struct {
	engine *Engine
	plan   Plan
	began  time.Time

	graph    graph
	progress *progress

	// mu serialises events and guards results and failures.
	mu       sync.Mutex
	results  []StepResult
	failures []error  // in the order in which they happened
	running  []string // what cancelled steps were doing
}

func (e *Engine) begin(plan Plan) *run {
	r := &run{engine: e, plan: plan, results: make([]StepResult, len(plan.Steps))}
	r.graph, r.progress = plan.forward(), newProgress(len(plan.Steps))
	r.began = time.Now()
	for i, s := range plan.Steps {
		r.results[i] = StepResult{ID: s.ID, Title: s.Title}
	}
	r.emit(Event{Kind: PlanStarted, Title: plan.Title, Steps: plan.infos()})
	return r
}

// emit completes an event and sends it. Events of steps that run in parallel are sent one by one.
func (r *run) emit(ev Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.emitLocked(ev)
}

func (r *run) emitLocked(ev Event) {
	if r.engine.Sink == nil {
		return
	}
	ev.Time, ev.Plan = time.Now(), r.plan.Name
	r.engine.Sink.Handle(ev)
}

// finish ends the run: cause is the error of the plan as a whole, or nil.
func (r *run) finish(cause error) (Result, error) {
	result := Result{Plan: r.plan.Name, Duration: time.Since(r.began), Steps: r.results}
	kind := PlanDone
	if cause != nil {
		kind = PlanFailed
	}
	r.emit(Event{Kind: kind, Title: r.plan.Title, Duration: result.Duration, Err: cause, Result: &result})
	return result, cause
}

// rank puts failures with a known cause before the others.
func rank(err error) int {
	if diagnosed(err) {
		return 0
	}
	return 1
}

// settle records how a step ended and sends its event.
func (r *run) settle(i int, res StepResult) {
	s := r.plan.Steps[i]
	res.ID, res.Title = s.ID, s.Title
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[i] = res
	if res.Outcome == Failed {
		r.failures = append(r.failures, &StepError{ID: s.ID, Title: s.Title, Err: res.Err})
	}
	r.emitLocked(Event{
		Kind: res.Outcome.ends(), Step: s.ID, Title: s.Title, Message: res.Message, Duration: res.Duration,
		Waited: res.Waited, Err: res.Err,
	})
}

// attempt runs work as step i within its timeout and settles it. work returns the outcome and a message where it
// succeeds. plan is the context of the run: a step that ended because it was cancelled is cancelled, not failed.
func (r *run) attempt(plan context.Context, i int, work func(context.Context, Step) (Outcome, string, error)) Outcome {
	s := r.plan.Steps[i]
	if plan.Err() != nil {
		r.settle(i, StepResult{Outcome: Canceled, Message: fmt.Sprintf("not started: %v", context.Cause(plan))})
		return Canceled
	}
	began := time.Now()
	r.emit(Event{Kind: StepStarted, Step: s.ID, Title: s.Title})
	sc := &scope{report: func(kind EventKind, message string, change *Change) {
		r.emit(Event{Kind: kind, Step: s.ID, Title: s.Title, Message: message, Change: change})
	}, reached: func(milestone string) { r.progress.reach(i, milestone) }}
	ctx, cancel := withLimit(context.WithValue(plan, scopeKey{}, sc), s.Timeout)
	defer cancel()

	var outcome Outcome
	var message string
	err := call(ctx, func() (err error) {
		// The label gives the step its share of a CPU profile; goroutines that it starts inherit it.
		pprof.Do(ctx, r.label(s), func(ctx context.Context) {
			outcome, message, err = work(ctx, s)
		})
		return err
	})
	last, changes, waited := sc.close()
	failed := ""
	if err != nil {
		failed = r.failedNeed(i)
	}
	res := StepResult{Duration: time.Since(began), Waited: waited, Changes: changes, Err: err}
	var limit *Timeout
	switch {
	case err == nil:
		res.Outcome, res.Message = outcome, message
	case isCancellation(plan, err):
		res.Outcome, res.Message = Canceled, context.Cause(plan).Error()
		r.mu.Lock()
		r.running = append(r.running, withLast(s.Title, last))
		r.mu.Unlock()
	case failed != "":
		res.Outcome, res.Message = Canceled, fmt.Sprintf("it needs %q, which was not done: %v", failed, err)
	case errors.As(context.Cause(ctx), &limit) && plan.Err() == nil:
		res.Outcome, res.Err = Failed, outOfTime(limit, last, err)
		res.Message = res.Err.Error()
	default:
		res.Outcome, res.Message = Failed, err.Error()
	}
	r.settle(i, res)
	return res.Outcome
}

// failedNeed returns the title of a step that reached the milestone that step i waits for and was not done in the end,
// or "". It waits for the end of these steps: where one of them fails, that is why step i failed as well.
func (r *run) failedNeed(i int) string {
	if r.graph.early == nil {
		return "" // the plan is being undone
	}
	for j, before := range r.graph.before[i] {
		if r.graph.early[i][j] != "" {
			<-r.progress.visited[before]
		}
	}
	return r.firstNotDone(r.graph.before[i])
}

// label marks the CPU time of a step in a profile.
func (r *run) label(s Step) pprof.LabelSet { return pprof.Labels(StepLabel, r.plan.Name+"/"+s.ID) }

// StepLabel is the label of a CPU profile that says which step spent the time, as plan/step.
const StepLabel = "step"

func withLast(title, last string) string {
	if last == "" {
		return title
	}
	return title + " (" + last + ")"
}

func withLimit(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if limit <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, limit, &Timeout{Limit: limit})
}

// call runs f and waits for it, and after ctx has ended for at most grace. A step that does not return within it is
// abandoned with an error that says so: the process must be able to end. A panic becomes an error, so that the other
// steps end in an orderly way.
func call(ctx context.Context, f func() error) error {
	returned := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				returned <- problem.New(problem.Internal, nil, "panic: %v\n%s", p, debug.Stack())
			}
		}()
		returned <- f()
	}()
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-returned:
		return err
	case <-timer.C:
		return problem.New(problem.Internal, nil, "did not return within %s after it was cancelled", grace)
	}
}

// failure joins the errors of the run: the steps' own failures first, in the order in which they happened, then the end
// of the caller's context. Where that was a deadline all steps ended at once, so failures with a known cause come
// first: the first one gives the run its exit code.
func (r *run) failure(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	errs := slices.Clone(r.failures)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		slices.SortStableFunc(errs, func(a, b error) int { return rank(a) - rank(b) })
	}
	canceled := false
	for _, res := range r.results {
		canceled = canceled || res.Outcome == Canceled
	}
	if ctx.Err() != nil && canceled {
		errs = append(errs, ended(ctx, r.plan.Name, r.running))
	}
	return errors.Join(errs...)
}
