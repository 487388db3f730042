package lab

import (
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/workshop"
)

// guide writes all stations as one Markdown document, to be read without the workshop or printed.
func guide(stations []workshop.Station) string {
	var b strings.Builder
	b.WriteString("# The workshop, step by step\n\n" +
		"`mage sm:workshop` shows the same, and checks each step. This page is made from the texts of the stations,\n" +
		"and a test runs every command in it. Without an installed `mage`, type `go tool mage` instead of `mage`.\n" +
		"Where SM_NAMESPACE names another namespace than default, give that one to kubectl.\n")
	for i, s := range stations {
		fmt.Fprintf(&b, "\n## %d. %s\n\n%s\n\n**Predict first.** %s\n\n", i+1, s.Title, s.Goal, s.Question)
		for _, c := range s.Choices {
			fmt.Fprintf(&b, "* %s: %s\n", c.Letter, c.Text)
		}
		fmt.Fprintf(&b, "\n**Steps.** %s\n\n", typedBlock(s.Steps))
		if s.Possible != nil {
			b.WriteString("Where Prometheus is not installed, the workshop leaves this station out.\n\n")
		}
		for j, hint := range s.Hints {
			fmt.Fprintf(&b, "**Hint %d.** %s\n\n", j+1, hint)
		}
		fmt.Fprintf(&b, "**Why.** The answer is %s: %s.\n\n%s\n\n**Try next.** %s\n", s.Answer,
			rightChoice(s.Text), s.Explanation, typedBlock(s.Next))
	}
	return b.String()
}

// typedBlock begins a block of commands on a line of its own.
func typedBlock(markdown string) string {
	if strings.HasPrefix(markdown, "```") {
		return "Type:\n\n" + markdown
	}
	return markdown
}

// rightChoice is the text of the right answer to the prediction, on one line.
func rightChoice(t workshop.Text) string {
	right := slices.IndexFunc(t.Choices, func(c workshop.Choice) bool { return c.Letter == t.Answer })
	return strings.ReplaceAll(oneLine(t.Choices[right].Text), "`", "")
}

// stationsTable lists the stations for the README: what to type, what is seen then, and what to try next.
func stationsTable(stations []workshop.Station) string {
	var b strings.Builder
	b.WriteString("| station | type | and see | then try |\n| --- | --- | --- | --- |\n")
	for i, s := range stations {
		fmt.Fprintf(&b, "| %d. %s | %s | %s | %s |\n", i+1, s.Title, inCode(s.Do()), oneLine(s.Goal),
			inCode(workshop.Commands(s.Next)))
	}
	return b.String()
}

func inCode(commands []string) string {
	if len(commands) == 0 {
		return ""
	}
	return "`" + strings.Join(commands, "`<br>`") + "`"
}

// oneLine makes one line of a paragraph.
func oneLine(markdown string) string { return strings.Join(strings.Fields(markdown), " ") }
