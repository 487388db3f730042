package ui

import (
	"fmt"
	"io"
	"strings"

	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
)

// summaryLimit is less than the size of a job summary that GitHub shows: 1 MiB for a step of a job.
const summaryLimit = 1000 << 10

// WriteSummary writes a run as Markdown, for a job's summary: what failed and what to do, the steps with their seconds,
// what the target printed, and how to repeat it. It writes less than 1 MiB.
func WriteSummary(w io.Writer, run record.Run) error {
	var b strings.Builder
	outcome := "succeeded"
	if run.Err != nil {
		outcome = fmt.Sprintf("failed with exit code %d", problem.ExitCode(run.Err))
	}
	fmt.Fprintf(&b, "## sm:%s %s after %s\n\n", run.Target, outcome, duration(run.Took))
	if run.Err != nil {
		for _, branch := range Branches(run.Err) {
			newReport(branch).markdown(&b)
		}
	}
	for _, plan := range run.Plans {
		fmt.Fprintf(&b, "### %s\n\n| step | outcome | seconds | |\n| --- | --- | ---: | --- |\n", cell(plan.Title))
		for _, step := range plan.Steps {
			outcome := string(step.Outcome)
			if outcome == "" {
				outcome = "not ended"
			}
			if step.Outcome == engine.Failed {
				outcome = "**failed**"
			}
			fmt.Fprintf(&b, "| %s | %s | %.1f | %s |\n", cell(step.Title), outcome, step.Took.Seconds(),
				cell(cut(oneLine(step.Message), 300, "…")))
		}
		b.WriteByte('\n')
	}
	for _, section := range run.Sections {
		fmt.Fprintf(&b, "### %s\n\n%s\n", cell(section.Title), fenced(section.Text))
	}
	b.WriteString("### To repeat it\n\n" + fenced(reproduce(run)))
	text := b.String()
	if len(text) > summaryLimit {
		const note = "\n\n(The rest is left out: a job summary has a limit of 1 MiB.)\n"
		text = strings.ToValidUTF8(text[:summaryLimit-len(note)], "") + note
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("writing the job summary: %w", err)
	}
	return nil
}

func (r report) markdown(b *strings.Builder) {
	title := r.id
	if title == "" {
		title = "Error"
	}
	fmt.Fprintf(b, "> **%s**\n>\n", cell(title))
	var lines []string
	if r.step != "" {
		lines = append(lines, "Failed step: "+r.step)
	}
	for _, line := range append(append(lines, r.seen), r.why()...) {
		fmt.Fprintf(b, "> %s\n>\n", cell(line))
	}
	b.WriteByte('\n')
}

// reproduce is what to type for the same run.
func reproduce(run record.Run) string {
	var b strings.Builder
	for _, set := range run.Settings {
		if set.Given {
			fmt.Fprintf(&b, "%s=%s ", set.Name, command.Quoted(set.Value))
		}
	}
	return b.String() + run.Typed
}

// cell is text for one line of Markdown, in a table too.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "`", "'", "*", `\*`, "_", `\_`, "[", `\[`).
		Replace(oneLine(text))
}

// fenced is text as it is, in a block that ends behind it.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "text\n" + printable(text) + "\n" + fence + "\n"
}
