package ui

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
)

// scripted is the scripted run as a recording.
func scripted(target string) record.Run {
	recorder := record.New(newPlain(&bytes.Buffer{}, environment()))
	for _, ev := range script() {
		recorder.Handle(ev)
	}
	recorder.Add("Verdicts", "VERDICT  CLAIM\nrefuted  fault-appa\n")
	run := recorder.Run(target, at(0), failure())
	run.Took, run.Typed = 128*time.Second, "go tool mage sm:"+target
	run.Settings = []record.Setting{
		{Name: "SM_PROVIDER", Value: "kind", Given: true},
		{Name: "SM_CLUSTER", Value: "ambient"},
		{Name: "SM_ADDONS", Value: "prometheus, kiali", Given: true},
	}
	return run
}

func TestGitHub(t *testing.T) {
	var out bytes.Buffer
	g := newGitHub(&out, environment())
	g.token = func() string { return "TOKEN" }
	for _, ev := range script() {
		g.Handle(ev)
	}
	g.Handle(engine.Event{Kind: engine.Warning, Title: "disk: space", Message: "4 GiB free,\n15 GiB are recommended"})
	g.Failure(failure())
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "github.txt", out.String())
	if n := strings.Count(out.String(), "\n::error "); n != 2 {
		t.Errorf("%d error annotations, want one for each of two failures", n)
	}
	for _, mark := range []string{"::group::", "::endgroup::"} {
		if n := strings.Count(out.String(), mark); n != 1 {
			t.Errorf("%s is written %d times, want once", mark, n)
		}
	}
}

// GitHub shows ten error annotations of a step; the output holds all failures.
func TestGitHubAnnotatesTenFailures(t *testing.T) {
	var out bytes.Buffer
	var failures []error
	for i := range 12 {
		failures = append(failures, fmt.Errorf("failure number %d of 12", i+1))
	}
	newGitHub(&out, environment()).Failure(errors.Join(failures...))
	if n := strings.Count(out.String(), "::error "); n != 10 {
		t.Errorf("%d error annotations, want 10:\n%s", n, out.String())
	}
	if !strings.Contains(out.String(), "failure number 12 of 12") {
		t.Errorf("the last failure is missing:\n%s", out.String())
	}
}

// What a cluster says is no command for the CI platform.
func TestGitHubKeepsCommandsOut(t *testing.T) {
	var out bytes.Buffer
	g := newGitHub(&out, environment())
	const attack = "::set-env name=PATH::/tmp\n::add-mask::x"
	g.Handle(engine.Event{Kind: engine.PlanStarted, Plan: "p", Title: attack})
	g.Handle(engine.Event{Kind: engine.StepProgress, Plan: "p", Step: "s", Message: attack})
	g.Handle(engine.Event{Kind: engine.Note, Message: attack})
	g.Failure(problem.New(problem.NotReady, errors.New(attack), attack))
	stopped := ""
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSpace(line)
		switch name, rest, _ := strings.Cut(strings.TrimPrefix(line, "::"), "::"); {
		case stopped != "" && line != "::"+stopped+"::", !strings.HasPrefix(line, "::"):
		case line == "::"+stopped+"::":
			stopped = ""
		case name == "stop-commands":
			stopped = rest
		case name == "group", name == "endgroup", strings.HasPrefix(name, "error "):
		default:
			t.Errorf("%q is a command", line)
		}
	}
}

func TestGitLab(t *testing.T) {
	var out bytes.Buffer
	g := newGitLab(&out, environment())
	for _, ev := range script() {
		g.Handle(ev)
	}
	g.Failure(failure())
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	golden(t, "gitlab.txt", out.String())
}

func TestSummary(t *testing.T) {
	var out bytes.Buffer
	if err := WriteSummary(&out, scripted("install")); err != nil {
		t.Fatal(err)
	}
	golden(t, "summary.md", out.String())
	long := scripted("install")
	long.Sections = []record.Section{{Title: "Long", Text: strings.Repeat("a line of text\n", 200_000)}}
	out.Reset()
	err := WriteSummary(&out, long)
	if err != nil || out.Len() >= 1<<20 || !strings.Contains(out.String(), "left out") {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

func TestJUnit(t *testing.T) {
	var out bytes.Buffer
	if err := WriteJUnit(&out, scripted("install")); err != nil {
		t.Fatal(err)
	}
	golden(t, "junit.xml", out.String())
}

// A target whose work succeeds and whose deletion fails has failed.
func TestJUnitFailedDelete(t *testing.T) {
	recorder := record.New(newPlain(&bytes.Buffer{}, environment()))
	steps := []engine.StepInfo{{ID: "delete", Title: "kind cluster ambient"}}
	stuck := problem.New(problem.ClusterCreateFailed, nil, "removing the containers of kind cluster ambient")
	for _, ev := range []engine.Event{
		{Time: at(0), Plan: "delete", Kind: engine.PlanStarted, Title: "Delete", Steps: steps},
		{Time: at(0), Plan: "delete", Kind: engine.StepStarted, Step: "delete", Title: steps[0].Title},
		{Time: at(25), Plan: "delete", Kind: engine.StepFailed, Step: "delete", Err: stuck, Duration: 25 * time.Second},
		{Time: at(25), Plan: "delete", Kind: engine.PlanFailed, Duration: 25 * time.Second, Err: stuck},
	} {
		recorder.Handle(ev)
	}
	var out bytes.Buffer
	if err := WriteJUnit(&out, recorder.Run("run", at(0), stuck)); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Suites []struct {
			Name     string `xml:"name,attr"`
			Failures int    `xml:"failures,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Suites) != 2 || got.Suites[0].Failures != 1 || got.Suites[1].Failures != 1 {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(out.String(), `type="LAB-CLUSTER-CREATE"`) {
		t.Errorf("the problem is not named:\n%s", out.String())
	}
}

func TestChosen(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		env  []string
		want Kind
	}{
		{Auto, nil, Auto},
		{Auto, []string{"GITHUB_ACTIONS", "true", "CI", "true"}, GitHub},
		{Auto, []string{"GITLAB_CI", "true", "CI", "true"}, GitLab},
		{Plain, []string{"GITHUB_ACTIONS", "true"}, Plain},
	} {
		if got := Chosen(c.kind, environment(c.env...)); got != c.want {
			t.Errorf("%s in %v: got %s, want %s", c.kind, c.env, got, c.want)
		}
	}
}
