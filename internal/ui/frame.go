package ui

import (
	"fmt"
	"time"
	"unicode/utf8"

	"ambientlab/internal/engine"
)

// state is the state of a step in the tree.
type state int

const (
	waiting state = iota
	running
	held
	done
	failed
	cancelled
)

type row struct {
	info    engine.StepInfo
	state   state
	began   time.Time
	took    time.Duration
	message string
}

// picture is the content of a frame of the tree.
type picture struct {
	title string
	began time.Time
	took  time.Duration
	over  bool
	tally string
	rows  []row
}

// reasonLines limits the lines of a failure's reason in the tree. FailureText prints the whole reason after the run.
const reasonLines = 3

// frame draws the picture as lines of at most width columns, and at most height lines; height 0 means no limit.
func (p picture) frame(s style, now time.Time, width, height int) []string {
	lines := []string{p.head(s, now, width)}
	shown := p.rows
	var above, below string
	if height > 0 && p.height(width) > height {
		shown, above, below = p.fold(height)
	}
	if above != "" {
		lines = append(lines, s.paint(sgrDim, s.glyphs.branch+cut(above, width-3, s.glyphs.ellipsis)))
	}
	column := 0
	for _, r := range shown {
		column = max(column, utf8.RuneCountInString(r.info.Title))
	}
	column = min(column, width*3/5)
	for i, r := range shown {
		last := i == len(shown)-1 && below == ""
		lines = append(lines, p.row(s, r, now, width, column, last, height > 0 && len(shown) < len(p.rows))...)
	}
	if below != "" {
		lines = append(lines, s.paint(sgrDim, s.glyphs.last+cut(below, width-3, s.glyphs.ellipsis)))
	}
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	return lines
}

func (p picture) head(s style, now time.Time, width int) string {
	took := now.Sub(p.began)
	if p.over {
		took = p.took
	}
	text := "  " + duration(took)
	if p.tally != "" {
		text += "  " + p.tally
	}
	title := cut(p.title, max(width-utf8.RuneCountInString(text), 10), s.glyphs.ellipsis)
	text = cut(text, width-utf8.RuneCountInString(title), s.glyphs.ellipsis)
	return s.paint(sgrBold, title) + s.paint(sgrDim, text)
}

// height returns the number of lines of the whole picture.
func (p picture) height(width int) int {
	n := 1
	for _, r := range p.rows {
		n++
		if r.state == failed {
			n += min(len(wrap(r.message, max(width-8, minimumWidth/2))), reasonLines)
		}
	}
	return n
}

// fold keeps the rows of running and failed steps, and counts the others: ended steps above, waiting steps below. If
// too many rows are left, the last ones are kept.
func (p picture) fold(height int) (shown []row, above, below string) {
	ended, idle := 0, 0
	for _, r := range p.rows {
		switch r.state {
		case running, failed:
			shown = append(shown, r)
		case waiting:
			idle++
		default:
			ended++
		}
	}
	if fit := max(height-3, 1); len(shown) > fit {
		ended += len(shown) - fit
		shown = shown[len(shown)-fit:]
	}
	if ended > 0 {
		above = fmt.Sprintf("%d more", ended)
	}
	if idle > 0 {
		below = fmt.Sprintf("%d waiting", idle)
	}
	return shown, above, below
}

func (p picture) row(s style, r row, now time.Time, width, column int, last, folded bool) []string {
	branch, rail := s.glyphs.branch, s.glyphs.rail
	if last {
		branch, rail = s.glyphs.last, s.glyphs.blank
	}
	glyph, code := s.mark(r, now)
	title := cut(r.info.Title, column, s.glyphs.ellipsis)
	line := s.paint(sgrDim, branch) + s.paint(code, glyph) + " "

	var tail string
	switch r.state {
	case running:
		tail = duration(now.Sub(r.began))
	case done, failed:
		tail = duration(r.took)
	case held:
		tail = "unchanged"
	case waiting:
		tail = p.waitsFor(r)
	}
	if r.message != "" && r.state != failed {
		if tail != "" {
			tail += "  "
		}
		tail += oneLine(r.message)
	}
	if tail != "" {
		title = pad(title, column)
		used := utf8.RuneCountInString(branch) + 2 + column
		tail = cut("  "+tail, width-used, s.glyphs.ellipsis)
	}
	lines := []string{line + title + s.paint(sgrDim, tail)}
	if r.state == failed && !folded {
		indent := utf8.RuneCountInString(rail) + 2
		reason := wrap(r.message, max(width-indent, minimumWidth/2))
		if len(reason) > reasonLines {
			reason = append(reason[:reasonLines-1],
				cut(reason[reasonLines-1]+" "+s.glyphs.ellipsis, width-indent, s.glyphs.ellipsis))
		}
		for _, text := range reason {
			lines = append(lines, s.paint(sgrDim, rail)+"  "+s.paint(sgrRed, text))
		}
	}
	return lines
}

// spinEvery is how long each glyph of the spinner is shown.
const spinEvery = 100 * time.Millisecond

func (s style) mark(r row, now time.Time) (glyph, code string) {
	switch r.state {
	case running:
		turn := int(max(now.Sub(r.began), 0)/spinEvery) % len(s.glyphs.spin)
		return s.glyphs.spin[turn], sgrYellow
	case held:
		return s.glyphs.held, sgrCyan
	case done:
		return s.glyphs.done, sgrGreen
	case failed:
		return s.glyphs.failed, sgrRed
	case cancelled:
		return s.glyphs.cancelled, sgrYellow
	default:
		return s.glyphs.waiting, sgrDim
	}
}

// waitsFor names the first step that r needs and that has not ended.
func (p picture) waitsFor(r row) string {
	for _, need := range r.info.Needs {
		for _, other := range p.rows {
			if other.info.ID == need && (other.state == waiting || other.state == running) {
				return "after " + other.info.Title
			}
		}
	}
	return ""
}
