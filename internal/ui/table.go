package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is data for standard output. Its columns are aligned with spaces, so a program can split the lines into fields.
type Table struct {
	Header []string
	Rows   [][]string
	// Width limits the lines by wrapping the last column; 0 means no limit.
	Width int
}

// Add appends a row, with values formatted by fmt.Sprint.
func (t *Table) Add(values ...any) {
	row := make([]string, len(values))
	for i, v := range values {
		row[i] = oneLine(fmt.Sprint(v))
	}
	t.Rows = append(t.Rows, row)
}

const columnGap = "   "

// Write writes the table. It writes an empty cell as "-", so that the number of fields is the same in every line.
func (t *Table) Write(w io.Writer) error {
	rows := t.Rows
	if len(t.Header) > 0 {
		rows = append([][]string{t.Header}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell), 1)
		}
	}
	var b strings.Builder
	for _, row := range rows {
		t.writeRow(&b, row, widths)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing a table: %w", err)
	}
	return nil
}

func (t *Table) writeRow(b *strings.Builder, row []string, widths []int) {
	indent := 0
	for i, cell := range row {
		if cell == "" {
			cell = "-"
		}
		if i < len(row)-1 {
			b.WriteString(pad(cell, widths[i]) + columnGap)
			indent += widths[i] + len(columnGap)
			continue
		}
		lines := []string{cell}
		if t.Width > 0 {
			lines = wrap(cell, max(t.Width-indent, minimumWidth/2))
		}
		b.WriteString(strings.Join(lines, "\n"+strings.Repeat(" ", indent)))
	}
	b.WriteByte('\n')
}
