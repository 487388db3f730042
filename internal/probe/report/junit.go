package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"

	"ambientlab/internal/probe"
)

type suites struct {
	XMLName xml.Name `xml:"testsuites"`
	Suites  []suite  `xml:"testsuite"`
}

type suite struct {
	Name       string     `xml:"name,attr"`
	Tests      int        `xml:"tests,attr"`
	Failures   int        `xml:"failures,attr"`
	Errors     int        `xml:"errors,attr"`
	Time       string     `xml:"time,attr"`
	Timestamp  string     `xml:"timestamp,attr"`
	Properties []property `xml:"properties>property,omitempty"`
	Cases      []testcase `xml:"testcase"`
}

type property struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type testcase struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *trouble `xml:"failure,omitempty"`
	Error   *trouble `xml:"error,omitempty"`
	Out     string   `xml:"system-out,omitempty"`
}

type trouble struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes one test case a claim: what is refuted has failed, what is inconclusive is an error.
func WriteJUnit(w io.Writer, r probe.Report) error {
	s := suite{
		Name: "sm:verify", Tests: len(r.Claims), Failures: r.Count(probe.Refuted), Errors: r.Count(probe.Inconclusive),
		Time: seconds(r.Took), Timestamp: r.Started.UTC().Format("2006-01-02T15:04:05"),
		Properties: []property{{"lab", r.Lab}, {"namespace", r.Namespace}, {"evidence", string(r.Evidence)}},
	}
	for _, f := range r.Facts {
		s.Properties = append(s.Properties, property{f.Name, f.Value})
	}
	for _, sub := range r.Substitutes {
		s.Properties = append(s.Properties, property{"substitute for " + sub.Image, sub.By})
	}
	for _, c := range r.Claims {
		t := testcase{
			Class: "ambientlab.verify." + c.Lesson, Name: c.ID + ": " + c.Title, Time: seconds(c.Took),
			Out: evidence(c),
		}
		found := &trouble{Message: headline(c), Type: string(c.Verdict), Text: strings.Join(c.Causes, "\n")}
		switch c.Verdict {
		case probe.Refuted:
			t.Failure = found
		case probe.Inconclusive:
			t.Error = found
		}
		s.Cases = append(s.Cases, t)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suites{Suites: []suite{s}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

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
