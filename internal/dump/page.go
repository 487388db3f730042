package dump

import (
	"bytes"
	_ "embed" // the page
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
	"ambientlab/internal/ui"
)

//go:embed page.html
var pageHTML string

// MapName and EventsName are files that the page draws: a []Node and a []Event in JSON. Logs end in LogSuffix.
const (
	MapName    = "cluster/map.json"
	EventsName = "cluster/events.json"
	LogSuffix  = ".log"
)

// shown are files that the page shows as they are, by name, with their titles.
var shown = map[string]string{
	"status.txt": "Status when the evidence was collected", "doctor.txt": "Checks of sm:doctor",
}

// Node is a node of the cluster with its pods, for the map.
type Node struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	State string `json:"state"`
	Pods  []Pod  `json:"pods"`
}

// Pod is a pod on the map. Reason is why it is not ready.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ready     bool   `json:"ready"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
}

// Event is an event of the cluster.
type Event struct {
	Last    time.Time `json:"last"`
	Type    string    `json:"type"`
	Object  string    `json:"object"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Count   int       `json:"count"`
}

// page is a dump as the template needs it.
type page struct {
	Title, Outcome, When, Took, Typed, Failure string
	// Sections are what the target printed, Found what was found when the evidence was collected.
	Sections, Found []record.Section
	Settings        []record.Setting
	Plans           []planView
	Nodes           []Node
	Trouble         []Pod
	Events          []Event
	Logs            []logView
	Missing         []Missing
	Files           []fileView
}

type planView struct {
	record.Plan
	Open  bool
	Took  string
	Steps []stepView
}

type stepView struct {
	record.Step
	Open        bool
	Class, Took string
	Left, Width float64 // on the time line, in per cent of the plan
	Changes     []string
}

type logView struct {
	Name, Text string
	Cut        bool
}

type fileView struct {
	Name string
	Size int
}

// The page holds the end of each log, and no more than this of all of them.
const (
	logLines  = 200
	logsLimit = 4 << 20
)

// render makes the page: one file that refers to nothing outside of it.
func render(c Contents) ([]byte, error) {
	parsed, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return nil, fmt.Errorf("reading the page's template: %w", err)
	}
	var b bytes.Buffer
	if err := parsed.Execute(&b, view(c)); err != nil {
		return nil, fmt.Errorf("making the page: %w", err)
	}
	return b.Bytes(), nil
}

func view(c Contents) page {
	run, clean := c.Run, c.Secrets.String
	p := page{
		Title: "sm:" + run.Target, Outcome: "collected this",
		When: run.Began.UTC().Format("2 January 2006, 15:04:05 UTC"),
		Took: run.Took.Round(100 * time.Millisecond).String(), Typed: clean(run.Typed), Missing: c.Missing,
	}
	if run.Err != nil {
		p.Outcome = fmt.Sprintf("failed with exit code %d", problem.ExitCode(run.Err))
		p.Failure = clean(strings.TrimSpace(ui.FailureText(run.Err, ui.Unwrapped)))
	}
	for _, section := range run.Sections {
		p.Sections = append(p.Sections, record.Section{Title: section.Title, Text: clean(section.Text)})
	}
	for _, set := range run.Settings {
		_, set.Value, _ = strings.Cut(clean(set.Name+"="+set.Value), "=")
		p.Settings = append(p.Settings, set)
	}
	for _, plan := range run.Plans {
		p.Plans = append(p.Plans, viewOfPlan(plan, clean))
	}
	room := logsLimit
	for _, file := range c.Files {
		p.Files = append(p.Files, fileView{file.Name, len(file.Content)})
		switch {
		case file.Name == MapName:
			_ = json.Unmarshal(file.Content, &p.Nodes) // it was made by this program
		case shown[file.Name] != "":
			p.Found = append(p.Found, record.Section{Title: shown[file.Name], Text: string(file.Content)})
		case file.Name == EventsName:
			_ = json.Unmarshal(file.Content, &p.Events)
		case strings.HasSuffix(file.Name, LogSuffix) && room > 0:
			lines := strings.SplitAfter(strings.TrimRight(string(file.Content), "\n"), "\n")
			last := lines[max(0, len(lines)-logLines):]
			text := strings.Join(last, "")
			room -= len(text)
			p.Logs = append(p.Logs, logView{file.Name, text, len(last) < len(lines)})
		}
	}
	for _, node := range p.Nodes {
		for _, pod := range node.Pods {
			if !pod.Ready {
				p.Trouble = append(p.Trouble, pod)
			}
		}
	}
	slices.SortStableFunc(p.Events, func(a, b Event) int { return b.Last.Compare(a.Last) })
	return p
}

func viewOfPlan(plan record.Plan, clean func(string) string) planView {
	v := planView{Plan: plan, Open: plan.Failed || !plan.Over, Took: plan.Took.Round(100 * time.Millisecond).String()}
	whole := plan.Took
	for _, step := range plan.Steps {
		if !step.Began.IsZero() {
			whole = max(whole, step.Began.Add(step.Took).Sub(plan.Began))
		}
	}
	for _, step := range plan.Steps {
		step.Message = clean(step.Message)
		s := stepView{
			Step: step, Open: step.Outcome == engine.Failed, Class: string(step.Outcome),
			Took: step.Took.Round(100 * time.Millisecond).String(),
		}
		if step.Outcome == "" {
			s.Class, s.Open = "unfinished", true
		}
		if !step.Began.IsZero() && whole > 0 {
			s.Left = 100 * float64(step.Began.Sub(plan.Began)) / float64(whole)
			s.Width = max(100*float64(step.Took)/float64(whole), 0.4)
		}
		for _, change := range step.Changes {
			s.Changes = append(s.Changes, clean(strings.TrimSpace(change.Action+" "+change.Object+" "+change.Detail)))
		}
		v.Steps = append(v.Steps, s)
	}
	return v
}
