package ui

import (
	"fmt"
	"io"
	"strings"

	"ambientlab/internal/engine"
)

// WritePreviews writes what a plan would do, as data for standard output: each step with its changes and with commands
// that have the same effect.
func WritePreviews(w io.Writer, title string, previews []engine.Preview, width int) error {
	if width <= 0 {
		width = defaultWidth
	}
	var b strings.Builder
	b.WriteString(oneLine(title) + "\n")
	changes := 0
	for _, p := range previews {
		writePreview(&b, p, width)
		changes += len(p.Changes)
	}
	fmt.Fprintf(&b, "\n%s, %s to make; this preview changed nothing.\n", counted(len(previews), "step"),
		counted(changes, "change"))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing a preview: %w", err)
	}
	return nil
}

func writePreview(b *strings.Builder, p engine.Preview, width int) {
	state := "to do"
	switch {
	case p.Err != nil:
		state = "cannot be checked"
	case p.Status.Done:
		state = "already done"
	}
	fmt.Fprintf(b, "\n%s (%s): %s\n", oneLine(p.Title), p.ID, state)
	indented := func(indent, text string) {
		for _, line := range wrap(text, max(width-len(indent), minimumWidth)) {
			b.WriteString(indent + line + "\n")
		}
	}
	if p.Err != nil {
		indented("  ", p.Err.Error())
	} else if p.Status.Message != "" {
		indented("  ", p.Status.Message)
	}
	if len(p.Needs) > 0 {
		indented("  ", "after: "+strings.Join(p.Needs, ", "))
	}
	for _, c := range p.Changes {
		sign := map[string]string{engine.Create: "+", engine.Update: "~", engine.Delete: "-", engine.Run: ">"}[c.Action]
		if sign == "" {
			sign = "?"
		}
		text := sign + " " + c.Object
		if c.Detail != "" {
			text += "  " + oneLine(c.Detail)
		}
		b.WriteString("  " + text + "\n")
	}
	for _, command := range p.Explain {
		b.WriteString("  $ " + strings.ReplaceAll(command, "\n", "\n    ") + "\n")
	}
}
