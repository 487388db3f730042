// Package record keeps what happened while a target ran, for what is written when it has ended: JUnit files, a job
// summary, a dump.
package record

import (
	"slices"
	"sync"
	"time"

	"ambientlab/internal/engine"
)

// Recorder keeps every event and passes it on.
type Recorder struct {
	next engine.Sink

	mu       sync.Mutex
	events   []engine.Event
	sections []Section
}

// Section is a text that a target printed and that a reader of the recording needs, such as the table of verdicts.
type Section struct{ Title, Text string }

// New makes a recorder in front of a sink.
func New(next engine.Sink) *Recorder { return &Recorder{next: next} }

// Handle implements engine.Sink.
func (r *Recorder) Handle(ev engine.Event) {
	r.mu.Lock()
	r.events = append(r.events, ev)
	r.mu.Unlock()
	r.next.Handle(ev)
}

// Add adds a section.
func (r *Recorder) Add(title, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sections = append(r.sections, Section{Title: title, Text: text})
}

// Run gives what was recorded until now.
func (r *Recorder) Run(target string, began time.Time, err error) Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Run{
		Target: target, Began: began, Took: time.Since(began), Err: err, Events: slices.Clone(r.events),
		Sections: slices.Clone(r.sections), Plans: plans(r.events),
	}
}

// Run is one run of a target.
type Run struct {
	// Target is the name of the target, without sm:.
	Target string
	// Began is when the target began, and Took how long it has run.
	Began time.Time
	Took  time.Duration
	// Err is why it failed, or nil.
	Err error
	// Settings are what the environment set, in the order of the documentation, and Typed is what was typed: together
	// they repeat the run.
	Settings []Setting
	Typed    string
	// Plans are the plans that ran, in order.
	Plans    []Plan
	Events   []engine.Event
	Sections []Section
}

// Setting is a setting with its value. Given says that the environment set it; otherwise it is the default.
type Setting struct {
	Name, Value string
	Given       bool
}

// Plan is one run of a plan.
type Plan struct {
	Name, Title string
	Began       time.Time
	Took        time.Duration
	// Over says that the plan has ended, and Failed that it failed.
	Over, Failed bool
	Steps        []Step
}

// Step is a step of a plan. Its Outcome is empty while it has not ended.
type Step struct {
	ID, Title string
	Needs     []string
	Outcome   engine.Outcome
	// Began is zero where the step never began.
	Began time.Time
	Took  time.Duration
	// Message is the last that the step said, or why it ended so.
	Message string
	Changes []engine.Change
	Err     error
}

// plans puts the events of plans together.
func plans(events []engine.Event) []Plan {
	var all []Plan
	for _, ev := range events {
		if ev.Kind == engine.PlanStarted {
			p := Plan{Name: ev.Plan, Title: ev.Title, Began: ev.Time}
			for _, info := range ev.Steps {
				p.Steps = append(p.Steps, Step{ID: info.ID, Title: info.Title, Needs: info.Needs})
			}
			all = append(all, p)
			continue
		}
		i := len(all) - 1
		for i >= 0 && all[i].Name != ev.Plan {
			i--
		}
		if i < 0 {
			continue
		}
		switch ev.Kind {
		case engine.PlanDone, engine.PlanFailed:
			all[i].Over, all[i].Failed, all[i].Took = true, ev.Kind == engine.PlanFailed, ev.Duration
		default:
			if at := slices.IndexFunc(all[i].Steps, func(s Step) bool { return s.ID == ev.Step }); at >= 0 {
				all[i].Steps[at].add(ev)
			}
		}
	}
	return all
}

func (s *Step) add(ev engine.Event) {
	switch ev.Kind {
	case engine.StepStarted:
		s.Began = ev.Time
	case engine.StepProgress:
		s.Message = ev.Message
	case engine.StepChanged:
		if ev.Change != nil {
			s.Changes = append(s.Changes, *ev.Change)
		}
	default:
		outcome := ev.Kind.Outcome()
		if outcome == "" {
			return
		}
		s.Outcome, s.Took, s.Err = outcome, ev.Duration, ev.Err
		if s.Message = ev.Message; ev.Message == "" && ev.Err != nil {
			s.Message = ev.Err.Error()
		}
	}
}
