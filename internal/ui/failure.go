package ui

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Unwrapped is a width at which FailureText breaks no line: a secret in two lines would not be recognised.
const Unwrapped = 1 << 20

// FailureText formats an error for a person, wrapped at width columns: for each joined error the failed step, what was
// observed, the cause, what to do and the problem's ID; then the exit code. It returns "" for nil.
func FailureText(err error, width int) string {
	if err == nil {
		return ""
	}
	var b strings.Builder
	for _, branch := range Branches(err) {
		b.WriteByte('\n')
		newReport(branch).write(&b, width)
	}
	fmt.Fprintf(&b, "\n%s%d\n", pad("Exit code", labelWidth), problem.ExitCode(err))
	return b.String()
}

const labelWidth = 15

// Branches splits joined errors. The wrapping of a single error stays with it.
func Branches(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, inner := range joined.Unwrap() {
			all = append(all, Branches(inner)...)
		}
		return all
	}
	return []error{err}
}

// report is one failure, split into its parts.
type report struct {
	step, seen, cause, id string
	advice                []string
}

// newReport splits one error into its parts. The problem may be wrapped in text that says what was being done; that
// text becomes a part of what was observed.
func newReport(err error) report {
	var r report
	var step *engine.StepError
	if errors.As(err, &step) {
		r.step, err = step.Title, step.Err
	}
	problems := problem.All(err)
	if len(problems) == 0 {
		r.seen = err.Error()
		return r
	}
	p := problems[0]
	r.seen, r.id = p.Seen, p.ID
	if r.seen == "" {
		r.seen = p.Title
	}
	if before, after, found := strings.Cut(err.Error(), p.Error()); found {
		r.seen = before + r.seen + after
	}
	if p.Err != nil {
		r.cause = p.Err.Error()
	}
	if p.Title != p.Seen && p.Title != "" {
		r.id += ": " + p.Title
	}
	for _, each := range problems {
		for _, advice := range each.Advice {
			if !slices.Contains(r.advice, advice) {
				r.advice = append(r.advice, advice)
			}
		}
	}
	return r
}

// why lists the cause and the advice, a line each.
func (r report) why() []string {
	var lines []string
	if r.cause != "" {
		lines = append(lines, "Cause: "+r.cause)
	}
	for _, advice := range r.advice {
		lines = append(lines, "What to do: "+advice)
	}
	return lines
}

func (r report) write(b *strings.Builder, width int) {
	row := func(label, mark, text string) {
		if text == "" {
			return
		}
		indent := labelWidth + len(mark)
		for i, line := range wrap(text, max(width-indent, minimumWidth)) {
			if i == 0 {
				b.WriteString(pad(label, labelWidth) + mark + line + "\n")
				continue
			}
			b.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+line, " ") + "\n")
		}
	}
	row("Failed step", "", r.step)
	row("Error", "", r.seen)
	row("Cause", "", r.cause)
	for i, advice := range r.advice {
		label := ""
		if i == 0 {
			label = "What to do"
		}
		row(label, "- ", advice)
	}
	row("Problem", "", r.id)
}
