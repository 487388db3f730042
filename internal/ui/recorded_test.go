package ui

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
)

// recorded reads testdata/ui/recorded.jsonl: what `sm:run -lessons=authz -- COMMAND` wrote with SM_OUTPUT=json where
// the command failed, and after it the deletion of the lab, in whose folder a file system was mounted. Only the command
// and the names of folders were replaced. It gives the events and the failure that the lines came from.
func recorded(t *testing.T) ([]engine.Event, error) {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/ui/recorded.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	var events []engine.Event
	var failures []error
	steps := map[string][]engine.StepResult{}
	for text := range strings.Lines(string(raw)) {
		var l Line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if l.Kind == kindFailure {
			if got := errors.Join(failures...).Error(); got != l.Error {
				t.Fatalf("the failed steps say %q, the failure %q", got, l.Error)
			}
			continue
		}
		ev := engine.Event{
			Time: l.Time, Plan: l.Plan, Step: l.Step, Title: l.Title, Kind: engine.EventKind(l.Kind),
			Message: l.Message, Change: l.Change, Steps: l.Steps, Duration: seconds(l.Seconds),
			Waited: seconds(l.Waited), Err: errorOf(l),
		}
		if ev.Kind == engine.PlanStarted {
			steps[ev.Plan] = nil
		}
		done := steps[ev.Plan]
		i := slices.IndexFunc(done, func(r engine.StepResult) bool { return r.ID == ev.Step })
		if ev.Step != "" && i < 0 {
			i = len(done)
			done = append(done, engine.StepResult{ID: ev.Step, Title: ev.Title})
		}
		switch outcome := ev.Kind.Outcome(); {
		case ev.Change != nil:
			done[i].Changes = append(done[i].Changes, *ev.Change)
		case outcome != "":
			done[i].Outcome = outcome
		case ev.Kind == engine.PlanDone, ev.Kind == engine.PlanFailed:
			ev.Result = &engine.Result{Plan: ev.Plan, Duration: ev.Duration, Steps: done}
		}
		if ev.Kind == engine.StepFailed {
			failures = append(failures, &engine.StepError{ID: ev.Step, Title: ev.Title, Err: ev.Err})
		}
		steps[ev.Plan] = done
		events = append(events, ev)
	}
	return events, errors.Join(failures...)
}

func seconds(given *float64) time.Duration {
	if given == nil {
		return 0
	}
	return time.Duration(*given * float64(time.Second))
}

// errorOf makes the error of a line, with its problem in it.
func errorOf(l Line) error {
	if len(l.Problems) == 0 {
		if l.Error == "" {
			return nil
		}
		return errors.New(l.Error)
	}
	first := l.Problems[0]
	p := &problem.Problem{ID: first.ID, Title: first.Title, Seen: first.Seen, Advice: first.Advice, Exit: first.Exit}
	if first.Why != "" {
		p.Err = errors.New(first.Why)
	}
	before, after, _ := strings.Cut(l.Error, p.Error())
	if before+after == "" {
		return p
	}
	return fmt.Errorf("%s%w%s", before, p, after)
}

// A real run that failed, as GitHub shows it: a group for each plan, one annotation, a summary that is short enough.
// Its deletion failed too, which JUnit says.
func TestRecorded(t *testing.T) {
	events, failed := recorded(t)
	var log, summary, results bytes.Buffer
	g := newGitHub(&log, environment())
	g.token = func() string { return "TOKEN" }
	recorder := record.New(g)
	plans := 0
	for _, ev := range events {
		recorder.Handle(ev)
		if ev.Kind == engine.PlanStarted {
			plans++
		}
	}
	run := recorder.Run("run", events[0].Time, failed)
	run.Took = events[len(events)-1].Time.Sub(events[0].Time)
	run.Typed = "go tool mage sm:run -lessons=authz -- go test ./e2e/..."
	run.Settings = []record.Setting{{Name: "SM_PROVIDER", Value: "embedded", Given: true}}
	g.Failure(failed)
	if err := errors.Join(g.Close(), WriteSummary(&summary, run), WriteJUnit(&results, run)); err != nil {
		t.Fatal(err)
	}
	golden(t, "recorded-github.txt", log.String())
	golden(t, "recorded-summary.md", summary.String())
	golden(t, "recorded-junit.xml", results.String())
	for _, c := range []struct {
		mark string
		want int
	}{{"::group::", plans}, {"::endgroup::", plans}, {"::error ", 2}} {
		if n := strings.Count("\n"+log.String(), "\n"+c.mark); n != c.want {
			t.Errorf("%s is written %d times, want %d", c.mark, n, c.want)
		}
	}
	if summary.Len() >= 1<<20 {
		t.Errorf("the summary has %d bytes", summary.Len())
	}
	var got struct {
		Suites []struct {
			Name     string `xml:"name,attr"`
			Failures int    `xml:"failures,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(results.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	deleting := false
	for _, suite := range got.Suites {
		deleting = deleting || strings.Contains(suite.Name, "elet") && suite.Failures > 0
	}
	if !deleting {
		t.Errorf("no suite says that the deletion failed: %+v", got)
	}
}
