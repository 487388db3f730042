package ui

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	defaultWidth  = 100
	defaultHeight = 24
	minimumWidth  = 40
)

// columns returns the width to wrap at if the output is not a terminal.
func columns(env func(string) string) int {
	if n, err := strconv.Atoi(env("COLUMNS")); err == nil && n >= minimumWidth {
		return n
	}
	return defaultWidth
}

// duration formats a duration: 0.3s, 12.4s, 1m05s, 1h02m.
func duration(d time.Duration) string {
	switch {
	case d < 59950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	default:
		d = d.Round(time.Minute)
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
}

// escapes matches the control sequences of colours and cursor movement.
var escapes = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]`)

// oneLine returns text as one line without control characters, so that text from a cluster cannot control the terminal.
func oneLine(text string) string { return strings.Join(strings.Fields(uncontrolled(text)), " ") }

// uncontrolled replaces control characters with blanks, and removes control sequences.
func uncontrolled(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, escapes.ReplaceAllString(text, ""))
}

// cut shortens text to a width. A shortened text ends in an ellipsis.
func cut(text string, width int, ellipsis string) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	keep := width - utf8.RuneCountInString(ellipsis)
	if keep <= 0 {
		return string(runes[:max(width, 0)])
	}
	return strings.TrimRight(string(runes[:keep]), " ") + ellipsis
}

// wrap breaks text at spaces into lines of at most width columns, and keeps the line breaks in the text. It also breaks
// words that are longer than width.
func wrap(text string, width int) []string {
	width = max(width, 1)
	var lines []string
	for _, paragraph := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		line, length := "", 0
		flush := func() {
			lines = append(lines, line)
			line, length = "", 0
		}
		for _, word := range strings.Fields(oneLine(paragraph)) {
			n := utf8.RuneCountInString(word)
			if length > 0 && length+1+n > width {
				flush()
			}
			for n > width {
				runes := []rune(word)
				lines = append(lines, string(runes[:width]))
				word, n = string(runes[width:]), n-width
			}
			if length > 0 {
				line, length = line+" ", length+1
			}
			line, length = line+word, length+n
		}
		flush()
	}
	return lines
}

// pad appends spaces to text up to a width.
func pad(text string, width int) string {
	if n := width - utf8.RuneCountInString(text); n > 0 {
		return text + strings.Repeat(" ", n)
	}
	return text
}
