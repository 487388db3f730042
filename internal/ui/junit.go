package ui

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"ambientlab/internal/engine"
)

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes results as JUnit XML: a suite per plan, a case per step. A
// cancelled step is a skipped case; what a step changed is its output.
func WriteJUnit(w io.Writer, results ...engine.Result) error {
	var doc junitSuites
	for _, res := range results {
		suite := junitSuite{
			Name: res.Plan, Tests: len(res.Steps), Failures: res.Count(engine.Failed),
			Skipped: res.Count(engine.Canceled), Time: fmt.Sprintf("%.3f", res.Duration.Seconds()),
		}
		for _, s := range res.Steps {
			c := junitCase{Name: s.Title, Class: res.Plan + "." + s.ID, Time: fmt.Sprintf("%.3f", s.Duration.Seconds())}
			switch s.Outcome {
			case engine.Failed:
				c.Failure = &junitMessage{Message: xmlText(s.Message), Text: xmlText(FailureText(s.Err, defaultWidth))}
			case engine.Canceled:
				c.Skipped = &junitMessage{Message: xmlText(s.Message)}
			}
			var changes []string
			for _, change := range s.Changes {
				changes = append(changes, changeText(&change))
			}
			c.Out = xmlText(strings.Join(changes, "\n"))
			suite.Cases = append(suite.Cases, c)
		}
		doc.Suites = append(doc.Suites, suite)
	}
	out, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return fmt.Errorf("writing JUnit XML: %w", err)
	}
	if _, err := io.WriteString(w, xml.Header+string(out)+"\n"); err != nil {
		return fmt.Errorf("writing JUnit XML: %w", err)
	}
	return nil
}

// xmlText drops what XML cannot hold, such as the escape codes in a program's output.
func xmlText(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}
