// Package trace records where the time of a run goes: how long each step took, how much of that it waited, and how much
// CPU time this process spent for it. The file can be opened in the browser with https://ui.perfetto.dev or
// chrome://tracing; it stays on this machine.
package trace

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/pprof/profile"

	"ambientlab/internal/engine"
)

// Trace is a sink that records the steps of a run and passes every event on.
type Trace struct {
	file string
	next engine.Sink

	mu      sync.Mutex
	began   time.Time
	samples []sample
	steps   map[string]*step // by plan/step
	cpu     bytes.Buffer     // a CPU profile of this process

	stop, stopped chan struct{}
}

// step is one step of one plan.
type step struct {
	plan, id, title string
	from, to        time.Time
	waited          time.Duration
	outcome         engine.EventKind
	cpu             time.Duration
}

// sample is how much CPU time the machine and this process had spent at a time.
type sample struct {
	at               time.Time
	machine, process time.Duration
}

// interval is how often the CPU time is read.
const interval = 100 * time.Millisecond

// Start begins a trace that Close writes to file. The file is created at once, so that one that cannot be written is
// refused before anything is changed.
func Start(file string, next engine.Sink) (*Trace, error) {
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return nil, err
	}
	t := &Trace{
		file: file, next: next, began: time.Now(), steps: map[string]*step{},
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	if err := pprof.StartCPUProfile(&t.cpu); err != nil {
		return nil, fmt.Errorf("starting a CPU profile: %w", err)
	}
	go t.watch()
	return t, nil
}

// watch reads the CPU times until stop is closed.
func (t *Trace) watch() {
	defer close(t.stopped)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		machine, process := Spent()
		t.samples = append(t.samples, sample{time.Now(), machine, process})
		select {
		case <-t.stop:
			return
		case <-tick.C:
		}
	}
}

// Handle implements engine.Sink.
func (t *Trace) Handle(ev engine.Event) {
	t.next.Handle(ev)
	t.mu.Lock()
	defer t.mu.Unlock()
	key := ev.Plan + "/" + ev.Step
	switch {
	case ev.Kind == engine.StepStarted:
		t.steps[key] = &step{plan: ev.Plan, id: ev.Step, title: ev.Title, from: ev.Time}
	case ev.Kind.Outcome() != "":
		s := t.steps[key]
		if s == nil {
			return // it was not started
		}
		s.to, s.waited, s.outcome = ev.Time, ev.Waited, ev.Kind
		if earlier := ev.Time.Add(-ev.Duration); earlier.Before(s.from) {
			s.from = earlier // it was checked before the run of the plan
		}
	}
}

// Close ends the trace, writes the file, and prints a table of the steps to w.
func (t *Trace) Close(w io.Writer) error {
	pprof.StopCPUProfile()
	close(t.stop)
	<-t.stopped
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.attribute(); err != nil {
		return err
	}
	return errors.Join(t.write(), t.table(w))
}

// attribute gives each step the CPU time of this process that the profile's labels say it spent.
func (t *Trace) attribute() error {
	read, err := profile.Parse(&t.cpu)
	if err != nil {
		return fmt.Errorf("reading the CPU profile: %w", err)
	}
	for _, s := range read.Sample {
		for _, key := range s.Label[engine.StepLabel] {
			if step := t.steps[key]; step != nil {
				step.cpu += time.Duration(s.Value[1]) // samples, then nanoseconds (runtime/pprof)
			}
		}
	}
	return nil
}

// sorted lists the steps that have ended in the order of their start.
func (t *Trace) sorted() []*step {
	var steps []*step
	for _, s := range t.steps {
		if !s.to.IsZero() {
			steps = append(steps, s)
		}
	}
	slices.SortFunc(steps, func(a, b *step) int { return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.id, b.id)) })
	return steps
}

// event is one of the Trace Event Format, which Perfetto reads: a complete event (X) or the value of a counter (C).
type event struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Start float64        `json:"ts"` // microseconds
	Took  float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

func (t *Trace) micros(at time.Time) float64 { return float64(at.Sub(t.began).Microseconds()) }

func (t *Trace) write() error {
	var events []event
	for i, s := range t.sorted() {
		events = append(events, event{
			Name: s.title, Phase: "X", Start: t.micros(s.from), Took: t.micros(s.to) - t.micros(s.from), TID: i + 1,
			Args: map[string]any{
				"plan": s.plan, "step": s.id, "outcome": s.outcome, "seconds": s.to.Sub(s.from).Seconds(),
				"waited": s.waited.Seconds(), "cpu": s.cpu.Seconds(),
				"cpuOfTheMachine": t.machine(s.from, s.to).Seconds(),
			},
		})
	}
	for i := 1; i < len(t.samples); i++ {
		before, now := t.samples[i-1], t.samples[i]
		took := now.at.Sub(before.at).Seconds()
		events = append(events, event{
			Name: "CPUs in use", Phase: "C", Start: t.micros(now.at), Args: map[string]any{
				"machine":      (now.machine - before.machine).Seconds() / took,
				"this process": (now.process - before.process).Seconds() / took,
			},
		})
	}
	raw, err := json.Marshal(map[string]any{"traceEvents": events, "displayTimeUnit": "ms"})
	if err != nil {
		return err
	}
	return os.WriteFile(t.file, raw, 0o644)
}

// machine is how much CPU time the whole machine spent between two times.
func (t *Trace) machine(from, to time.Time) time.Duration {
	at := func(when time.Time) time.Duration {
		last := time.Duration(0)
		for _, s := range t.samples {
			if s.at.After(when) {
				break
			}
			last = s.machine
		}
		return last
	}
	if len(t.samples) == 0 || from.Before(t.samples[0].at) {
		return 0
	}
	return at(to) - at(from)
}

func (t *Trace) table(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STEP\tFROM\tTO\tSECONDS\tWAITED\tCPU\tCPU OF THE MACHINE")
	for _, s := range t.sorted() {
		fmt.Fprintf(table, "%s/%s\t%.1f\t%.1f\t%.1f\t%.1f\t%.2f\t%.1f\n", s.plan, s.id, s.from.Sub(t.began).Seconds(),
			s.to.Sub(t.began).Seconds(), s.to.Sub(s.from).Seconds(), s.waited.Seconds(), s.cpu.Seconds(),
			t.machine(s.from, s.to).Seconds())
	}
	return table.Flush()
}
