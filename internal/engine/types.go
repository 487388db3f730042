// Package engine runs plans. A plan is a graph of steps; a step can be checked, done, undone, previewed and explained.
// The engine knows steps and nothing of what they do. It stores nothing: every run asks each step whether it is done,
// so a run that was killed is simply run again.
//
// Only the engine starts goroutines for steps; a step's own functions may be single-threaded.
package engine

import (
	"context"
	"time"
)

// Status is what a step's Check found.
type Status struct {
	// Done says that there is nothing to do.
	Done bool
	// Message says what was found, or why the step is not done, in the words of the best source: a pod's waiting
	// reason, a condition's message.
	Message string
	// Planned says that Message names the changes that Do will make. A run does not report it: each change is reported
	// when it is made.
	Planned bool
}

// Change is one thing that was, or would be, changed.
type Change struct {
	// Object names what is changed, such as Deployment default/appb.
	Object string `json:"object"`
	// Action is create, update, delete or run.
	Action string `json:"action"`
	// Detail says which part of the object changes, and may be empty.
	Detail string `json:"detail,omitempty"`
}

// String is the change as a line of text, such as "update Service default/appb (labels)".
func (c Change) String() string {
	text := c.Action + " " + c.Object
	if c.Detail != "" {
		text += " (" + c.Detail + ")"
	}
	return text
}

// The actions of a Change.
const (
	Create = "create"
	Update = "update"
	Delete = "delete"
	Run    = "run"
)

// Step is the smallest unit that can be checked, done, undone, previewed and explained. Every function may be nil.
type Step struct {
	// ID is unique in its plan; Title is for people.
	ID, Title string
	// Needs lists the IDs of the steps that must be done before this one starts. ID/milestone means that it is enough
	// that the step has reached one of its Milestones.
	Needs []string
	// Milestones are what Do reaches before it ends, and reports with Reached. A step that is done has reached all of
	// them.
	Milestones []string
	// Timeout bounds the step as a whole, its checks included; 0 means no bound.
	Timeout time.Duration
	// Check says whether the step is done. A step without Check is done in every run; one with Check and without Do is
	// a precondition: the plan fails where it is not met.
	Check func(context.Context) (Status, error)
	// Do does the step. It must be safe to run after an earlier run was killed in its middle, and must return soon
	// after its context is cancelled.
	Do func(context.Context) error
	// Undo undoes the step. Where there is nothing to undo it returns nil.
	Undo func(context.Context) error
	// Preview lists what Do would change, without changing it.
	Preview func(context.Context) ([]Change, error)
	// Explain gives the commands that a user would type for the same effect.
	Explain func() []string
	// Files gives the files that these commands name, by their names.
	Files func(context.Context) (map[string][]byte, error)
}

// Decorator adds to a step what several steps have in common, such as retries.
type Decorator func(Step) Step

// Plan is the steps of one target. Steps are listed in the order in which a reader expects them; only Needs orders
// their execution.
type Plan struct {
	Name, Title string
	Steps       []Step
	// LookFirst checks all steps at once before the first is done. Where all are done, that is all that a run does. It
	// is for plans that are often run with nothing to do: otherwise each step is checked after those that it needs.
	LookFirst bool
}

// Decorate returns the plan with every decorator applied to every step. The first decorator is the innermost: the ones
// after it see the step that it returned.
func (p Plan) Decorate(decorators ...Decorator) Plan {
	steps := make([]Step, len(p.Steps))
	for i, step := range p.Steps {
		for _, decorate := range decorators {
			step = decorate(step)
		}
		steps[i] = step
	}
	p.Steps = steps
	return p
}

// Sink receives events, one at a time, in the order in which they happened. Handle must not block for long: the steps
// wait for it.
type Sink interface{ Handle(Event) }

// EventKind says what an Event reports. The values appear in JSON output and are part of the interface.
type EventKind string

// The kinds of events.
const (
	PlanStarted   EventKind = "plan-started"
	StepStarted   EventKind = "step-started"
	StepProgress  EventKind = "step-progress"
	StepChanged   EventKind = "step-changed"
	StepUnchanged EventKind = "step-unchanged" // the step was done before this run
	StepDone      EventKind = "step-done"
	StepFailed    EventKind = "step-failed"
	StepCanceled  EventKind = "step-canceled"
	PlanDone      EventKind = "plan-done"
	PlanFailed    EventKind = "plan-failed"
	Note          EventKind = "note" // for people, and kept on screen; Step is set where a step sent it
	// Warning is about something that may break a lab; Title names what was checked. The target that sends it prints it
	// too.
	Warning EventKind = "warning"
)

// StepInfo describes a step in PlanStarted.
type StepInfo struct {
	ID    string   `json:"id"`
	Title string   `json:"title"`
	Needs []string `json:"needs,omitempty"`
}

// Event is one thing that happened in a run.
type Event struct {
	Time time.Time
	// Plan is the plan's name. Step and Title are the step's; on events of the plan Title is the plan's.
	Plan, Step, Title string
	Kind              EventKind
	Message           string
	// Duration is how long the step or plan took, and Waited how much of it a step waited (see Waiting); set on the
	// events that end one.
	Duration, Waited time.Duration
	Err              error
	// Change is set on StepChanged.
	Change *Change
	// Steps is set on PlanStarted.
	Steps []StepInfo
	// Result is set on PlanDone and PlanFailed.
	Result *Result
}

// Outcome is how a step ended.
type Outcome string

// The outcomes of a step. Unchanged means that it was done before this run.
const (
	Unchanged Outcome = "unchanged"
	Done      Outcome = "done"
	Failed    Outcome = "failed"
	Canceled  Outcome = "canceled"
)

// ends is the kind of the event that ends a step with this outcome.
func (o Outcome) ends() EventKind { return EventKind("step-" + o) }

// Outcome is that of the step that an event of this kind ends, or empty where it ends none.
func (k EventKind) Outcome() Outcome {
	for _, outcome := range []Outcome{Unchanged, Done, Failed, Canceled} {
		if outcome.ends() == k {
			return outcome
		}
	}
	return ""
}

// StepResult is how one step ended.
type StepResult struct {
	ID, Title string
	Outcome   Outcome
	// Message is the last status or the reason.
	Message  string
	Duration time.Duration
	// Waited is how much of Duration the step waited (see Waiting).
	Waited  time.Duration
	Changes []Change
	Err     error
}

// Result is how a plan ended; Steps are in the plan's order.
type Result struct {
	Plan     string
	Duration time.Duration
	Steps    []StepResult
}

// Preview is what a step would do. Blocked means that the step could not be checked because a step that it needs is not
// done; Status.Message then says which.
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

// Engine runs plans. Its zero value works and sends no events.
type Engine struct {
	// Sink receives the events; nil drops them.
	Sink Sink
}

// grace is how long a cancelled step may take to return before the engine goes on without it and reports that. It is
// long enough for a step to remove what it left half made.
const grace = 30 * time.Second
