// Package report writes what a run of the proofs found: as a table for a terminal, as JUnit XML for a pipeline, as JSON
// (see schema.json) for programs, and as one self-contained page for people.
package report

import (
	"bytes"
	_ "embed" // the page and the schema
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"ambientlab/internal/probe"
)

// Names of the files in a report's folder.
const (
	PageFile  = "report.html"
	JSONFile  = "report.json"
	JUnitFile = "junit.xml"
)

// Schema is the JSON Schema (draft 2020-12) of WriteJSON's output.
//
//go:embed schema.json
var Schema []byte

// WriteFolder writes all three files into a folder, which is made when missing.
func WriteFolder(folder string, r probe.Report) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("making the report's folder: %w", err)
	}
	var errs []error
	for name, write := range map[string]func(io.Writer, probe.Report) error{
		PageFile: WritePage, JSONFile: WriteJSON, JUnitFile: WriteJUnit,
	} {
		var content bytes.Buffer
		err := write(&content, r)
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name), content.Bytes(), 0o644)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("writing %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// WriteJSON writes the report as JSON.
func WriteJSON(w io.Writer, r probe.Report) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

// WriteTable writes a table of verdicts, and under it the evidence of what is not proven.
func WriteTable(w io.Writer, r probe.Report) error {
	var out bytes.Buffer
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERDICT\tCLAIM\tEVIDENCE")
	for _, c := range r.Claims {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Verdict, c.ID, headline(c))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, c := range r.Claims {
		if c.Verdict == probe.Proven {
			continue
		}
		fmt.Fprintf(&out, "\n%s: %s\n", c.ID, c.Title)
		for _, k := range c.Checks {
			fmt.Fprintf(&out, "  %-12s %s: %s\n", k.Verdict, k.Name, k.Text)
		}
		for _, cause := range c.Causes {
			fmt.Fprintf(&out, "  likely cause: %s\n", cause)
		}
	}
	fmt.Fprintf(&out, "\n%s in %s.\n", tally(r), r.Took.Round(time.Second))
	if text := leftOut(r); text != "" {
		fmt.Fprintf(&out, "%s.\n", text)
	}
	if len(r.Substitutes) > 0 {
		fmt.Fprintln(&out, "Not Istio's own images:")
		for _, s := range r.Substitutes {
			fmt.Fprintf(&out, "  %s: %s\n", s.Image, s.By)
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// headline is the one finding that says most: the first that refutes a claim or leaves it open; of a proven one, the
// finding that the claim is about.
func headline(c probe.Result) string {
	for _, verdict := range []probe.Verdict{probe.Refuted, probe.Inconclusive} {
		for _, k := range c.Checks {
			if k.Verdict == verdict && c.Verdict != probe.Proven {
				return k.Text
			}
		}
	}
	about := []string{"share delayed", "identity", "status"}
	if c.Lesson == "authz" {
		about = []string{"status"}
	}
	for _, name := range about {
		for _, k := range c.Checks {
			if k.Name == name {
				return k.Text
			}
		}
	}
	if len(c.Checks) > 0 {
		return c.Checks[0].Text // such as a claim on configuration, which has checks of its own
	}
	return ""
}

// leftOut names the claims that the report's kind of evidence cannot decide.
func leftOut(r probe.Report) string {
	if len(r.LeftOut) == 0 {
		return ""
	}
	other := map[probe.Evidence]string{probe.OnTraffic: "configuration", probe.OnConfiguration: "traffic"}[r.Evidence]
	return fmt.Sprintf("Left out, since only %s can decide them: %d (%s)", other, len(r.LeftOut),
		strings.Join(r.LeftOut, ", "))
}

func tally(r probe.Report) string {
	parts := []string{fmt.Sprintf("%d of %d claims proven", r.Count(probe.Proven), len(r.Claims))}
	if r.Evidence == probe.OnConfiguration {
		parts[0] += " on configuration"
	}
	for _, v := range []probe.Verdict{probe.Refuted, probe.Inconclusive} {
		if n := r.Count(v); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	return strings.Join(parts, ", ")
}
