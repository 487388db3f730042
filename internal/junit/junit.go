// Package junit writes test results in the XML form of JUnit, which CI platforms read.
package junit

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

type suites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []Suite  `xml:"testsuite"`
}

// Suite is one set of test cases. Write counts the cases.
type Suite struct {
	Name     string `xml:"name,attr"`
	Tests    int    `xml:"tests,attr"`
	Failures int    `xml:"failures,attr"`
	Errors   int    `xml:"errors,attr"`
	Skipped  int    `xml:"skipped,attr,omitempty"`
	// Time is how long the suite took, Timestamp when it began: see Seconds and Stamp.
	Time       string     `xml:"time,attr"`
	Timestamp  string     `xml:"timestamp,attr"`
	Properties []Property `xml:"properties>property,omitempty"`
	Cases      []Case     `xml:"testcase"`
}

// Property is a fact about a suite.
type Property struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

// Case is one test. At most one of Failure, Error and Skipped is set; none of them means that the test passed.
type Case struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *Trouble `xml:"failure,omitempty"`
	Error   *Trouble `xml:"error,omitempty"`
	Skipped *Skipped `xml:"skipped,omitempty"`
	Out     string   `xml:"system-out,omitempty"`
}

// Trouble says why a test did not pass.
type Trouble struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// Skipped says why a test was not run.
type Skipped struct {
	Message string `xml:"message,attr"`
}

// Write writes suites as one document.
func Write(w io.Writer, list ...Suite) error {
	for i := range list {
		s := &list[i]
		s.Tests, s.Failures, s.Errors, s.Skipped = len(s.Cases), 0, 0, 0
		for _, c := range s.Cases {
			switch {
			case c.Failure != nil:
				s.Failures++
			case c.Error != nil:
				s.Errors++
			case c.Skipped != nil:
				s.Skipped++
			}
		}
	}
	var b strings.Builder
	b.WriteString(xml.Header)
	encoder := xml.NewEncoder(&b)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suites{Suites: list}); err != nil {
		return fmt.Errorf("encoding test results: %w", err)
	}
	b.WriteByte('\n')
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing test results: %w", err)
	}
	return nil
}

// Seconds formats a duration for Time.
func Seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

// Stamp formats a time for Timestamp: in UTC, without a zone.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05") }
