package ui

import (
	"encoding/json"
	"io"
	"sync"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Line is one line of JSON output. event.schema.json in this folder is its schema. Within a version, fields are added
// but never changed or removed.
type Line struct {
	// Version is the version of the schema: 1.
	Version int `json:"v"`
	// Time is in UTC.
	Time time.Time `json:"time"`
	// Kind is an engine.EventKind, or failure.
	Kind string `json:"kind"`
	// Plan is the name of the plan, Step the ID of the step.
	Plan string `json:"plan,omitempty"`
	Step string `json:"step,omitempty"`
	// Title is the title of the step, or of the plan if Step is empty.
	Title   string `json:"title,omitempty"`
	Message string `json:"message,omitempty"`
	// Seconds is the duration of the step or plan, on the line that ends it.
	Seconds *float64 `json:"seconds,omitempty"`
	// Waited is how much of Seconds a step waited for what happens without it, such as a pod that starts.
	Waited *float64 `json:"waited,omitempty"`
	// Error is the text of the error; Problems are the problems in it.
	Error    string            `json:"error,omitempty"`
	Problems []LineProblem     `json:"problems,omitempty"`
	Exit     *int              `json:"exit,omitempty"`
	Change   *engine.Change    `json:"change,omitempty"`
	Steps    []engine.StepInfo `json:"steps,omitempty"`
	Result   *LineResult       `json:"result,omitempty"`
}

// LineProblem is a problem as JSON.
type LineProblem struct {
	ID     string   `json:"id"`
	Title  string   `json:"title"`
	Seen   string   `json:"seen"`
	Why    string   `json:"why,omitempty"`
	Advice []string `json:"advice,omitempty"`
	Exit   int      `json:"exit"`
}

// LineResult counts the steps of a plan by outcome, and its changes.
type LineResult struct {
	Done      int `json:"done"`
	Unchanged int `json:"unchanged"`
	Failed    int `json:"failed"`
	Canceled  int `json:"canceled"`
	Changes   int `json:"changes"`
}

// kindFailure is the kind of the line that is not an event of the engine.
const kindFailure = "failure"

type jsonLines struct {
	mu   sync.Mutex
	out  *json.Encoder
	now  func() time.Time
	done bool
}

func newJSON(w io.Writer) *jsonLines {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &jsonLines{out: enc, now: time.Now}
}

func (j *jsonLines) write(l Line) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.done {
		return
	}
	l.Version, l.Time = 1, l.Time.UTC()
	// An error of writing to standard error cannot be reported anywhere.
	_ = j.out.Encode(l)
}

// Handle implements engine.Sink.
func (j *jsonLines) Handle(ev engine.Event) {
	l := Line{
		Time: ev.Time, Kind: string(ev.Kind), Plan: ev.Plan, Step: ev.Step, Title: ev.Title,
		Message: ev.Message, Change: ev.Change, Steps: ev.Steps,
	}
	if ev.Kind.Outcome() != "" || ev.Kind == engine.PlanDone || ev.Kind == engine.PlanFailed {
		seconds := ev.Duration.Round(time.Millisecond).Seconds()
		l.Seconds = &seconds
		if ev.Waited > 0 {
			waited := ev.Waited.Round(time.Millisecond).Seconds()
			l.Waited = &waited
		}
	}
	if ev.Err != nil {
		l.Error, l.Problems = ev.Err.Error(), lineProblems(ev.Err)
	}
	if r := ev.Result; r != nil {
		l.Result = &LineResult{
			Done: r.Count(engine.Done), Unchanged: r.Count(engine.Unchanged), Failed: r.Count(engine.Failed),
			Canceled: r.Count(engine.Canceled), Changes: len(r.Changes()),
		}
	}
	j.write(l)
}

func lineProblems(err error) []LineProblem {
	var list []LineProblem
	for _, p := range problem.All(err) {
		l := LineProblem{ID: p.ID, Title: p.Title, Seen: p.Seen, Advice: p.Advice, Exit: p.Exit}
		if p.Err != nil {
			l.Why = p.Err.Error()
		}
		list = append(list, l)
	}
	return list
}

// Failure implements Renderer.
func (j *jsonLines) Failure(err error) {
	if err == nil {
		return
	}
	exit := problem.ExitCode(err)
	j.write(Line{Time: j.now(), Kind: kindFailure, Error: err.Error(), Problems: lineProblems(err), Exit: &exit})
}

// Close implements Renderer.
func (j *jsonLines) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.done = true
	return nil
}
