package report

import (
	"fmt"
	"io"
	"strings"

	"ambientlab/internal/junit"
	"ambientlab/internal/probe"
)

// WriteJUnit writes one test case a claim: what is refuted has failed, what is inconclusive is an error.
func WriteJUnit(w io.Writer, r probe.Report) error {
	s := junit.Suite{
		Name: "sm:verify", Time: junit.Seconds(r.Took), Timestamp: junit.Stamp(r.Started),
		Properties: []junit.Property{
			{Name: "lab", Value: r.Lab},
			{Name: "namespace", Value: r.Namespace},
			{Name: "evidence", Value: string(r.Evidence)},
		},
	}
	for _, f := range r.Facts {
		s.Properties = append(s.Properties, junit.Property{Name: f.Name, Value: f.Value})
	}
	for _, sub := range r.Substitutes {
		s.Properties = append(s.Properties, junit.Property{Name: "substitute for " + sub.Image, Value: sub.By})
	}
	for _, c := range r.Claims {
		t := junit.Case{
			Class: "ambientlab.verify." + c.Lesson, Name: c.ID + ": " + c.Title, Time: junit.Seconds(c.Took),
			Out: evidence(c),
		}
		found := &junit.Trouble{Message: headline(c), Type: string(c.Verdict), Text: strings.Join(c.Causes, "\n")}
		switch c.Verdict {
		case probe.Refuted:
			t.Failure = found
		case probe.Inconclusive:
			t.Error = found
		}
		s.Cases = append(s.Cases, t)
	}
	return junit.Write(w, s)
}

func evidence(c probe.Result) string {
	var out strings.Builder
	for _, k := range c.Checks {
		fmt.Fprintf(&out, "%s: %s: %s\n", k.Verdict, k.Name, k.Text)
	}
	for _, m := range c.Measured {
		fmt.Fprintf(&out, "%s %s from %s, run %s: %d sent\n", m.Method, m.Path, m.Who, m.Run, m.Sent)
	}
	return out.String()
}
