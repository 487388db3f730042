package ui

import (
	"cmp"
	"errors"
	"io"
	"strings"

	"ambientlab/internal/engine"
	"ambientlab/internal/junit"
	"ambientlab/internal/record"
)

// WriteJUnit writes a run as test results: one suite for each plan, and one for the target itself, which has one test
// case. A step is a test case. One that failed has the ID of its problem, the cause and the advice; one that was
// cancelled is skipped. The target's own test case fails where the target failed, whatever the reason was.
func WriteJUnit(w io.Writer, run record.Run) error {
	name := "sm:" + run.Target
	whole := junit.Case{Class: "ambientlab." + run.Target, Name: name, Time: junit.Seconds(run.Took)}
	if run.Err != nil {
		whole.Failure = trouble(Branches(run.Err)[0])
	}
	var output strings.Builder
	for _, section := range run.Sections {
		output.WriteString(section.Title + "\n" + section.Text + "\n")
	}
	whole.Out = printable(output.String())
	list := []junit.Suite{{
		Name: name, Time: junit.Seconds(run.Took), Timestamp: junit.Stamp(run.Began), Cases: []junit.Case{whole},
	}}
	for _, set := range run.Settings {
		if set.Given {
			list[0].Properties = append(list[0].Properties, junit.Property{Name: set.Name, Value: set.Value})
		}
	}
	for _, plan := range run.Plans {
		s := junit.Suite{
			Name: name + " " + plan.Title, Time: junit.Seconds(plan.Took), Timestamp: junit.Stamp(plan.Began),
		}
		for _, step := range plan.Steps {
			s.Cases = append(s.Cases, caseOf(run.Target, plan, step))
		}
		list = append(list, s)
	}
	return junit.Write(w, list...)
}

func caseOf(target string, plan record.Plan, step record.Step) junit.Case {
	c := junit.Case{
		Class: "ambientlab." + target + "." + plan.Name, Name: step.ID + ": " + step.Title,
		Time: junit.Seconds(step.Took),
	}
	var output strings.Builder
	for _, change := range step.Changes {
		output.WriteString(change.String() + "\n")
	}
	c.Out = printable(output.String())
	switch step.Outcome {
	case engine.Failed:
		c.Failure = trouble(cmp.Or(step.Err, errors.New(step.Message)))
	case engine.Canceled:
		c.Skipped = &junit.Skipped{Message: printable(step.Message)}
	case "":
		c.Error = &junit.Trouble{Message: printable(cmp.Or(step.Message, "the step did not end")), Type: "unfinished"}
	}
	return c
}

// trouble says in the terms of JUnit why something failed. Its type is the ID of the problem.
func trouble(err error) *junit.Trouble {
	r := newReport(err)
	id, _, _ := strings.Cut(r.id, ":")
	text := strings.Join(r.why(), "\n")
	return &junit.Trouble{Message: printable(r.seen), Type: cmp.Or(id, "error"), Text: printable(text)}
}

// printable removes from lines what controls a terminal, which XML does not allow either.
func printable(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i, line := range lines {
		lines[i] = strings.TrimRight(uncontrolled(line), " ")
	}
	return strings.Join(lines, "\n")
}
