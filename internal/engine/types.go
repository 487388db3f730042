// Package engine runs plans. A plan is a graph of steps; a step can be checked,
// done, undone, previewed and explained. The engine knows steps and nothing of
// what they do. It stores nothing: whether a step already holds is asked of the
// world each time, so a run that was killed is simply run again.
//
// It is the only place that starts goroutines for steps; a step's own functions
// may be written single-threaded.
package engine

import (
	"context"
	"time"
)

// Status is what a look at the world says about a step.
type Status struct {
	// Holds says that there is nothing to do.
	Holds bool
	// Message says what was found, or why the step does not hold, in the words of
	// whatever knows best (a pod's waiting reason, a condition's message).
	Message string
}

// Change is one thing that was, or would be, changed.
type Change struct {
	// Object names what is changed, such as Deployment default/appb.
	Object string `json:"object"`
	// Action is create, update, delete or run.
	Action string `json:"action"`
	// Detail says what of it, and may be empty.
	Detail string `json:"detail,omitempty"`
}

// The actions a Change can have.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
	Run    = "run"
)

// Step is the smallest thing that can be checked, done, undone and explained. Every
// function may be nil.
type Step struct {
	// ID is unique in its plan; Title is for people.
	ID, Title string
	// Needs lists the IDs of the steps that must hold before this one starts.
	Needs []string
	// Timeout bounds the step as a whole, its checks included; 0 means unbounded.
	Timeout time.Duration
	// Check looks at the world. Without it the step is always done; with it and
	// without Do the step is a gate that must hold by itself.
	Check func(context.Context) (Status, error)
	// Do brings the step about. It must be safe to run on what an earlier run left
	// half-done, and must return soon after its context is cancelled.
	Do func(context.Context) error
	// Undo takes the step back, and is content where there is nothing to take back.
	Undo func(context.Context) error
	// Preview says what Do would change, without changing it.
	Preview func(context.Context) ([]Change, error)
	// Explain gives the commands a learner would type for the same effect.
	Explain func() []string
}

// Plan is the steps of one target. Steps are listed in the order a reader expects;
// only Needs orders their execution.
type Plan struct {
	Name, Title string
	Steps       []Step
}

// Clock is the engine's source of time, for durations and time stamps. Deadlines
// use the runtime's timers.
type Clock interface{ Now() time.Time }

// Sink receives events, one at a time, in the order they happened. Handle must not
// block for long: the steps' progress waits for it.
type Sink interface{ Handle(Event) }

// EventKind says what an Event reports. The values appear in JSON output and are
// part of the interface.
type EventKind string

// The kinds of events.
const (
	PlanStarted  EventKind = "plan-started"
	StepStarted  EventKind = "step-started"
	StepProgress EventKind = "step-progress"
	StepChanged  EventKind = "step-changed"
	StepHeld     EventKind = "step-held" // already so: nothing was done
	StepDone     EventKind = "step-done"
	StepFailed   EventKind = "step-failed"
	StepCanceled EventKind = "step-canceled"
	PlanDone     EventKind = "plan-done"
	PlanFailed   EventKind = "plan-failed"
	Note         EventKind = "note" // for people, to stay readable; of a step where one said it
)

// StepInfo introduces a step in PlanStarted.
type StepInfo struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Needs []string `json:"needs,omitempty"`
}

// Event is one thing that happened in a run.
type Event struct {
	Time time.Time
	// Plan is the plan's name. Step and Title are the step's, or Title the plan's.
	Plan, Step, Title string
	Kind              EventKind
	Message           string
	// Duration is how long the step or plan took; set on the events that end one.
	Duration time.Duration
	Err      error
	// Change is set on StepChanged.
	Change *Change
	// Steps is set on PlanStarted.
	Steps []StepInfo
	// Result is set on PlanDone and PlanFailed.
	Result *Result
}

// Outcome is how a step ended.
type Outcome string

// The outcomes of a step.
const (
	Held     Outcome = "held"
	Done     Outcome = "done"
	Failed   Outcome = "failed"
	Canceled Outcome = "canceled"
)

// StepResult is what became of one step.
type StepResult struct {
	ID, Title string
	Outcome   Outcome
	// Message is the last status or the reason.
	Message  string
	Duration time.Duration
	Changes  []Change
	Err      error
}

// Result is what became of a plan; Steps are in the plan's order.
type Result struct {
	Plan     string
	Duration time.Duration
	Steps    []StepResult
}

// Preview is what a step would do. Blocked means that the step could not be looked
// at because one it needs does not hold yet; Status.Message then says so.
type Preview struct {
	ID, Title string
	Needs     []string
	Status    Status
	Blocked   bool
	Changes   []Change
	Explain   []string
	Err       error
}

// StepStatus is what Inspect found for a step. Blocked is as in Preview.
type StepStatus struct {
	ID, Title string
	Status    Status
	Blocked   bool
	Err       error
}

// Engine runs plans. Its zero value works: no events, the real clock.
type Engine struct {
	// Sink receives the events; nil drops them.
	Sink Sink
	// Clock is the source of time; nil is the system's.
	Clock Clock
	// Parallel bounds how many steps run at once; 0 means no bound.
	Parallel int
	// Grace is how long a cancelled step may take to return before the engine goes
	// on without it and says so; 0 means DefaultGrace.
	Grace time.Duration
}

// DefaultGrace is long enough for a step to remove what it half-made.
const DefaultGrace = 30 * time.Second
