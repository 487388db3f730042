package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

func TestPlain(t *testing.T) {
	var out bytes.Buffer
	p := newPlain(&out, environment())
	for _, ev := range script() {
		p.Handle(ev)
	}
	p.Failure(failure())
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	p.Handle(engine.Event{Kind: engine.Note, Message: "after the end"})
	golden(t, "plain.txt", out.String())
}

func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	j := newJSON(&out)
	j.now = func() time.Time { return at(129) }
	for _, ev := range script() {
		j.Handle(ev)
	}
	j.Failure(failure())
	j.Failure(nil)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j.Failure(failure())
	golden(t, "events.jsonl", out.String())
}

// The schema that users read must name exactly the fields that are written.
func TestJSONSchemaIsComplete(t *testing.T) {
	data, err := os.ReadFile("event.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]struct {
			Enum []string `json:"enum"`
		} `json:"properties"`
		Required []string          `json:"required"`
		Defs     map[string]object `json:"$defs"`
	}
	var schema object
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	check := func(name string, o object, typ reflect.Type) {
		t.Helper()
		var fields, required, described []string
		for i := range typ.NumField() {
			tag, options, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			fields = append(fields, tag)
			if options != "omitempty" {
				required = append(required, tag)
			}
		}
		for p := range o.Properties {
			described = append(described, p)
		}
		for _, list := range [][]string{fields, required, described, o.Required} {
			slices.Sort(list)
		}
		if !slices.Equal(fields, described) || !slices.Equal(required, o.Required) {
			t.Errorf("%s: written %v (required %v), described %v (required %v)", name, fields, required, described,
				o.Required)
		}
	}
	check("line", schema, reflect.TypeFor[Line]())
	check("problem", schema.Defs["problem"], reflect.TypeFor[LineProblem]())
	check("result", schema.Defs["result"], reflect.TypeFor[LineResult]())
	check("change", schema.Defs["change"], reflect.TypeFor[engine.Change]())
	check("step", schema.Defs["step"], reflect.TypeFor[engine.StepInfo]())

	kinds := []string{kindFailure}
	for _, ev := range script() {
		if !slices.Contains(kinds, string(ev.Kind)) {
			kinds = append(kinds, string(ev.Kind))
		}
	}
	kinds = append(kinds, string(engine.PlanDone), string(engine.Warning))
	enum := schema.Properties["kind"].Enum
	slices.Sort(kinds)
	slices.Sort(enum)
	if !slices.Equal(kinds, enum) {
		t.Errorf("kinds written %v, described %v", kinds, enum)
	}
}

func TestFailureText(t *testing.T) {
	var b strings.Builder
	for name, err := range map[string]error{
		"joined": failure(),
		"plain":  errors.New("no such host"),
		"nested": problem.New(problem.WaypointNotReady, problem.New(problem.ZtunnelDown, nil, "node ambient-worker2"),
			"Gateway default/appb-waypoint is not programmed"),
		"within": fmt.Errorf("%w (not finished within 2m0s)",
			problem.New(problem.NotReady, nil, "Deployment default/appa: 0 of 1 available")),
		"bare": problem.New(problem.Interrupted, nil, ""),
	} {
		b.Reset()
		b.WriteString(FailureText(err, 80))
		golden(t, "failure-"+name+".txt", b.String())
	}
	if FailureText(nil, 80) != "" {
		t.Error("no failure has words")
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	table := Table{Header: []string{"COMPONENT", "READY", "REASON"}, Width: 60}
	table.Add("istiod", true, "")
	table.Add("ztunnel", false,
		"DaemonSet istio-system/ztunnel: 2 of 3 ready: node ambient-worker2: no ztunnel connection")
	table.Add("", 3, "été")
	if err := table.Write(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", out.String())
	if err := table.Write(brokenWriter{}); err == nil {
		t.Error("a table that cannot be written is no error")
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestPreviews(t *testing.T) {
	var out bytes.Buffer
	err := WritePreviews(&out, "Install the lab", []engine.Preview{
		{ID: "kind", Title: "kind cluster ambient", Status: engine.Status{Done: true, Message: "3 nodes ready"}},
		{
			ID: "apps", Title: "Applications", Needs: []string{"kind", "istio"},
			Status: engine.Status{Message: "2 objects differ"},
			Changes: []engine.Change{
				{Object: "Deployment default/appa", Action: engine.Create},
				{Object: "Service default/appb", Action: engine.Update, Detail: "labels"},
				{Object: "ConfigMap default/old", Action: engine.Delete},
				{Object: "sysctl", Action: engine.Run},
			},
			Explain: []string{"kubectl apply --server-side -f - <<EOF\napiVersion: v1\nEOF"},
		},
		{
			ID: "waypoint", Title: "Waypoint",
			Status: engine.Status{Message: `needs "Applications", which is not done yet`}, Blocked: true,
		},
		{ID: "x", Title: "X", Err: errors.New("forbidden")},
	}, 80)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "preview.txt", out.String())
}

// Without a terminal, and on one that cannot draw, auto is plain.
func TestNewChooses(t *testing.T) {
	for name, tc := range map[string]struct {
		kind Kind
		want any
	}{
		"auto into a pipe": {Auto, &plain{}},
		"plain":            {Plain, &plain{}},
		"json":             {JSON, &jsonLines{}},
	} {
		r := New(tc.kind, &bytes.Buffer{}, environment("TERM", "xterm"))
		if got, want := fmt.Sprintf("%T", r), fmt.Sprintf("%T", tc.want); got != want {
			t.Errorf("%s gives %s", name, got)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Events and failures come from many goroutines; their lines are not interleaved.
func TestConcurrentWritersKeepLinesWhole(t *testing.T) {
	var out bytes.Buffer
	j := newJSON(&out)
	var writers sync.WaitGroup
	for i := range 8 {
		writers.Go(func() {
			for n := range 50 {
				j.Handle(engine.Event{Kind: engine.Note, Message: fmt.Sprintf("%d %d", i, n)})
				j.Failure(fmt.Errorf("%d %d", i, n))
			}
		})
	}
	writers.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 800 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, line := range lines {
		var l Line
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 340 * time.Millisecond: "0.3s", 59949 * time.Millisecond: "59.9s", 59960 * time.Millisecond: "1m00s",
		65 * time.Second: "1m05s", 62 * time.Minute: "1h02m",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v is %s, want %s", d, got, want)
		}
	}
	if got := wrap("ab cd\n\nabcdefghij k", 5); !slices.Equal(got, []string{"ab cd", "", "abcde", "fghij", "k"}) {
		t.Errorf("%q", got)
	}
	if got := cut("abcdef", 4, "…"); got != "abc…" {
		t.Errorf("%q", got)
	}
	if got := cut("abcdef", 0, "…"); got != "" {
		t.Errorf("%q", got)
	}
	if got := columns(environment("COLUMNS", "72")); got != 72 {
		t.Errorf("%d", got)
	}
}

// TestPlainJoinsObjects checks that objects which a step creates one after the other share a line, whatever other steps
// do meanwhile, and that a change with a detail has its own.
func TestPlainJoinsObjects(t *testing.T) {
	var out bytes.Buffer
	p := New(Plain, &out, environment())
	event := func(step string, kind engine.EventKind, change *engine.Change) {
		p.Handle(engine.Event{Time: at(0), Plan: "install", Step: step, Kind: kind, Change: change})
	}
	change := func(step, action, object, detail string) {
		event(step, engine.StepChanged, &engine.Change{Action: action, Object: object, Detail: detail})
	}
	for i := range 3 {
		change("a", engine.Create, fmt.Sprintf("Role x/r%d", i), "")
		change("b", engine.Create, fmt.Sprintf("Secret x/s%d", i), "")
		change("b", engine.Create, fmt.Sprintf("Pod x/p%d", i), "")
	}
	change("a", engine.Delete, "Role x/old", "")
	change("a", engine.Update, "Role x/r9", "rules: 1 → 2")
	event("b", engine.StepDone, nil)
	event("c", engine.StepStarted, nil)
	event("d", engine.StepCanceled, nil) // it was not started
	event("c", engine.StepCanceled, nil)
	want := `install/a: create Role x/r0, Role x/r1, Role x/r2
install/a: delete Role x/old
install/a: update Role x/r9 (rules: 1 → 2)
install/b: create 6 objects: 3 Secret, 3 Pod
install/b: done in 0.0s
install/c: start
install/c: cancelled
`
	if got := strings.ReplaceAll(out.String(), at(0).UTC().Format("2006-01-02T15:04:05Z")+" ", ""); got != want {
		t.Errorf("lines:\n%s\nwant:\n%s", got, want)
	}
}
