package workshop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	"ambientlab/internal/probe"
)

// style is how a line looks; the text says the same without it.
type style string

const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	green  style = "32"
	red    style = "31"
	yellow style = "33"
)

// row is one line of the screen.
type row struct {
	style style
	text  string
}

// terminal is the surface for a terminal. It is used by one goroutine.
type terminal struct {
	engine *Engine
	feed   *Feed
	out    io.Writer
	colour bool
	size   func() (width, height int)
	// page gives the address of the page, and opens it.
	page func() string

	// text is shown in place of the station, from line offset on, where title is set.
	title      string
	text       []row
	offset     int
	predicting bool
	listing    bool
	message    string
	// answers are what to show once the lab has answered.
	answers chan func()
}

// Interactive tells whether a surface for a terminal can be shown.
func Interactive(in, out *os.File, getenv func(string) string) bool {
	return term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd())) && getenv("TERM") != "dumb"
}

// frame is how often the screen is written at most. A screen that is written for every event is slow over a network.
const frame = 100 * time.Millisecond

// Terminal shows the workshop on a terminal until the learner quits or ctx ends, and leaves the terminal as it was.
// page opens the page and gives its address.
func Terminal(
	ctx context.Context, engine *Engine, feed *Feed, in, out *os.File, getenv func(string) string, page func() string,
) (err error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("setting the terminal to single keys: %w", err)
	}
	_, _ = io.WriteString(out, "\x1b[?1049h\x1b[?25l\x1b[2J") // another screen, no cursor
	defer func() {
		_, _ = io.WriteString(out, "\x1b[?25h\x1b[?1049l")
		err = errors.Join(err, term.Restore(int(in.Fd()), before))
	}()
	t := &terminal{
		engine: engine, feed: feed, out: out, page: page, answers: make(chan func()),
		colour: getenv("NO_COLOR") == "",
		size: func() (int, int) {
			width, height, err := term.GetSize(int(out.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				return 80, 24
			}
			return width, height
		},
	}
	// A read of the terminal cannot be cancelled. The goroutine that waits for a key ends with the process.
	keys := make(chan string)
	go func() {
		defer close(keys)
		buffer := make([]byte, 256)
		for {
			n, err := in.Read(buffer)
			if err != nil {
				return
			}
			for _, key := range splitKeys(string(buffer[:n])) {
				select {
				case keys <- key:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return t.run(ctx, keys)
}

// splitKeys gives the keys of what was read at once: characters, and the sequences that arrows and page keys send.
func splitKeys(read string) []string {
	var keys []string
	for read != "" {
		_, length := utf8.DecodeRuneInString(read)
		if sequence, isSequence := strings.CutPrefix(read, "\x1b["); isSequence {
			end := strings.IndexFunc(sequence, func(c rune) bool { return c >= '@' && c <= '~' })
			length = len("\x1b[") + end + 1
		}
		keys, read = append(keys, read[:length]), read[length:]
	}
	return keys
}

func (t *terminal) run(ctx context.Context, keys <-chan string) error {
	tick := time.NewTicker(frame)
	defer tick.Stop()
	last := ""
	for {
		if drawn := t.draw(); drawn != last {
			_, _ = io.WriteString(t.out, drawn)
			last = drawn
		}
		select {
		case <-ctx.Done():
			return nil
		case key, open := <-keys:
			if !open || t.press(ctx, key) {
				return nil
			}
		case answer := <-t.answers:
			answer()
		case <-tick.C:
		}
	}
}

// press acts on a key and tells whether the learner quits.
func (t *terminal) press(ctx context.Context, key string) (quit bool) {
	t.message = ""
	switch {
	case key == "\x03" || key == "\x04": // Ctrl-C, Ctrl-D
		return true
	case t.predicting:
		t.predicting = false
		if key != "\x1b" { // Escape answers nothing
			_ = t.engine.Predict(key)
		}
		return false
	case t.listing && len(key) == 1 && strings.Contains(stationKeys, key):
		t.closeText()
		_ = t.engine.Go(strings.Index(stationKeys, key))
		return false
	case t.title != "":
		_, height := t.size()
		switch key {
		case " ", "\x1b[6~", "\x1b[B":
			t.offset += height / 2 // rows keeps it within the text
		case "\x1b[5~", "\x1b[A":
			t.offset -= height / 2
		default:
			t.closeText()
		}
		return false
	}
	// What goes wrong with an action is part of the view.
	switch key {
	case "q":
		return true
	case "p":
		if t.predicting = t.engine.View().Question != ""; !t.predicting {
			t.message = "this station has no question"
		}
	case "c":
		_ = t.engine.Check()
	case "h":
		_ = t.engine.Hint()
	case "n":
		_ = t.engine.Next()
	case "d":
		t.start(ctx, t.engine.Do)
	case "u":
		t.start(ctx, t.engine.Undo)
	case "o":
		t.open(ctx)
	case "y":
		t.manual(ctx, "YAML, and what applying it would change now", yamlRows)
	case "k":
		t.manual(ctx, "The same with kubectl", commandRows)
	case "b":
		t.start(ctx, func(ctx context.Context) error { return t.engine.Break(ctx, 0) })
	case "l":
		t.list()
	case "s":
		t.steps()
	case "r":
		t.output()
	case "e":
		t.show("Evidence of the last check", evidenceRows(t.engine.View()))
	case "\r", " ", "\x1b":
	default:
		t.message = fmt.Sprintf("%q is none of the keys below", key)
	}
	return false
}

// stationKeys are the keys that lead from the list to the stations.
const stationKeys = "123456789abcdefgh"

// output shows what the last command printed.
func (t *terminal) output() {
	rows := []row{}
	for _, line := range t.engine.View().Output {
		rows = append(rows, row{plain, line})
	}
	if len(rows) == 0 {
		t.message = "no command was run here yet"
		return
	}
	t.show("What the last command printed", rows)
	t.offset = len(rows) // its end; rows keeps it within the text
}

// steps shows all that the station has to read.
func (t *terminal) steps() {
	v := t.engine.View()
	if v.Steps == "" {
		t.message = "here you choose the steps: find out what is broken, and fix it by any means"
		return
	}
	text := v.Steps + "\n\nTry next\n\n" + v.Next
	if v.Done {
		text += "\n\nWhy\n\n" + v.Explanation
	}
	t.show("Steps, and what to try next", markdownRows(text))
}

// start runs a command of the station; its output is part of the view.
func (t *terminal) start(ctx context.Context, run func(context.Context) error) {
	go func() { _ = run(ctx) }()
}

func (t *terminal) show(title string, text []row) {
	t.title, t.text, t.offset, t.listing = title, text, 0, false
}

func (t *terminal) closeText() { t.title, t.text, t.offset, t.listing = "", nil, 0, false }

// manual asks the lab for what a learner needs to do the station by hand.
func (t *terminal) manual(ctx context.Context, title string, rows func(Manual) []row) {
	t.later(ctx, "Reading the lab's objects ...", func() func() {
		manual, err := t.engine.Manual(ctx)
		return func() {
			switch {
			case err != nil:
				t.message = err.Error()
			case len(manual.Files) == 0:
				t.message = "this station has no YAML of its own; s shows its steps"
			default:
				t.show(title, rows(manual))
			}
		}
	})
}

// open opens the page. A browser may take long to start.
func (t *terminal) open(ctx context.Context) {
	t.later(ctx, "Opening the page ...", func() func() {
		told := t.page()
		return func() { t.message = told }
	})
}

// later lets the keys work while something takes long. What that gives is then called where the screen is drawn.
func (t *terminal) later(ctx context.Context, meanwhile string, slow func() func()) {
	t.message = meanwhile
	go func() {
		show := slow()
		select {
		case t.answers <- func() { t.message = ""; show() }:
		case <-ctx.Done():
		}
	}()
}

func yamlRows(manual Manual) []row {
	rows := []row{{dim, "The target applies these objects, labels them, and waits until the proxies have them."}}
	if len(manual.Differences) == 0 {
		rows = append(rows, row{green, "The cluster has all of it."})
	}
	for _, difference := range manual.Differences {
		rows = append(rows, row{yellow, "to do: " + difference})
	}
	for _, diff := range manual.Diffs {
		rows = append(rows, row{}, row{bold, "What is live, and what applying the file makes of it: " + diff.Name})
		for line := range strings.Lines(diff.Text) {
			look := map[byte]style{'-': red, '+': green, '@': dim}[line[0]]
			rows = append(rows, row{look, strings.TrimRight(line, "\n")})
		}
	}
	for _, file := range manual.Files {
		rows = append(rows, row{}, row{bold, "# " + file.Name})
		for line := range strings.Lines(file.Text) {
			look := plain
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				look = dim
			}
			rows = append(rows, row{look, strings.TrimRight(line, "\n")})
		}
	}
	return rows
}

func commandRows(manual Manual) []row {
	var rows []row
	for _, command := range manual.Commands {
		for line := range strings.Lines(command) {
			rows = append(rows, row{plain, strings.TrimRight(line, "\n")})
		}
		rows = append(rows, row{})
	}
	return rows
}

func markdownRows(markdown string) []row {
	var rows []row
	inside := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside
		case inside:
			rows = append(rows, row{bold, "    $ " + line})
		default:
			rows = append(rows, row{plain, strings.ReplaceAll(line, "`", "")})
		}
	}
	return rows
}

func evidenceRows(v View) []row {
	if v.Report == nil {
		return []row{{plain, "Nothing has been measured yet. c checks."}}
	}
	var rows []row
	for _, claim := range v.Report.Claims {
		rows = append(rows, row{verdictStyle(claim.Verdict), fmt.Sprintf("%s: %s", claim.Verdict, claim.Title)})
		for _, check := range claim.Checks {
			rows = append(rows, row{plain, fmt.Sprintf("  %s: %s: %s", check.Verdict, check.Name, check.Text)})
		}
	}
	return rows
}

func (t *terminal) list() {
	var rows []row
	for _, s := range t.engine.List() {
		state, look := "", plain
		switch {
		case !s.Notes.Done.IsZero():
			state, look = fmt.Sprintf("done in %s", lasted(s.Notes)), green
		case s.Here:
			state = "here"
		}
		if s.Notes.Hints > 0 {
			state += fmt.Sprintf(", %s", counted(s.Notes.Hints, "hint"))
		}
		rows = append(rows, row{look, fmt.Sprintf("%c  %-40s %s", stationKeys[s.Number-1], s.Title,
			strings.TrimPrefix(state, ", "))})
	}
	if v := t.engine.View(); v.Fixed > 0 {
		rows = append(rows, row{}, row{plain, fmt.Sprintf("Faults fixed with b: %d of %d", v.Fixed, v.Faults)})
	}
	t.show("Stations: its key goes to one", rows)
	t.listing = true
}

// lasted is how long the learner was at a station until it was done; 0 where that is not known.
func lasted(n Notes) time.Duration {
	if n.Began.IsZero() || n.Done.IsZero() {
		return 0
	}
	return n.Done.Sub(n.Began).Round(time.Second)
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// draw gives everything that is written for one screen.
func (t *terminal) draw() string {
	width, height := t.size()
	rows := t.rows(width, height)
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, r := range rows {
		text := cut(r.text, width)
		if t.colour && r.style != plain {
			text = "\x1b[" + string(r.style) + "m" + text + "\x1b[0m"
		}
		b.WriteString(text + "\x1b[K")
		if i < len(rows)-1 {
			b.WriteString("\r\n")
		}
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// rows gives the lines of the screen, at most height.
func (t *terminal) rows(width, height int) []row {
	if t.title != "" {
		rows := []row{{bold, t.title}, {}}
		var text []row
		for _, r := range t.text {
			for i, line := range wrap(r.text, width) {
				if i > 0 {
					line = "    " + line
				}
				text = append(text, row{r.style, line})
			}
		}
		t.offset = max(0, min(t.offset, len(text)-(height-4)))
		rows = append(rows, text[t.offset:min(len(text), t.offset+height-4)]...)
		for len(rows) < height-1 {
			rows = append(rows, row{})
		}
		return append(rows, row{dim, "space and arrows scroll, every other key goes back"})
	}
	v := t.engine.View()
	rows := t.station(v, width)
	foot := []row{{dim, keysOfStation}, {dim, keysOf(v)}}
	free := height - len(rows) - len(foot)
	if free > 0 && v.Look.Lessons.On("apps") && v.Look.NoPackets == "" {
		rows = append(rows, row{bold, "Last requests"})
		for _, r := range t.feed.Last(free - 1) {
			rows = append(rows, requestRow(r))
		}
	}
	if room := max(0, height-len(foot)); len(rows) > room {
		rows = rows[:room]
		if room > 0 {
			rows[room-1] = row{dim, "… a larger window shows more; the page shows all"}
		}
	}
	for len(rows) < height-len(foot) {
		rows = append(rows, row{})
	}
	return append(rows, foot...)
}

// keysOfStation are the keys that show or do something at a station.
const keysOfStation = "p predict  d do it  c check  h hint  s steps  y YAML  k kubectl  e evidence"

func keysOf(v View) string {
	keys := "r output  u undo  b break  o page  l list  q quit"
	switch {
	case v.Broken && v.Done:
		return "n back to the station  r output  o page  q quit"
	case v.Broken:
		return "u give up and restore the lab  r output  o page  q quit"
	case v.Done && !v.Finished:
		return "n next station  " + keys
	}
	return keys
}

// station gives the lines about the station.
func (t *terminal) station(v View, width int) []row {
	var rows []row
	add := func(look style, text string) {
		for _, line := range wrap(text, width) {
			rows = append(rows, row{look, line})
		}
	}
	if v.Broken {
		add(bold, "Ambient lab workshop: "+v.Station.Title)
	} else {
		add(bold, fmt.Sprintf("Ambient lab workshop, %d of %d: %s", v.Index+1, v.Count, v.Station.Title))
	}
	add(plain, flat(v.Goal))
	if !v.Done && v.Steps != "" {
		add(plain, "Do: "+strings.Join(v.Do(), "; "))
	}
	for _, item := range v.Items {
		add(verdictStyle(item.Verdict), mark(item.Verdict)+" "+item.Title)
	}
	switch {
	case t.predicting:
		add(bold, flat(v.Question))
		for _, c := range v.Choices {
			add(plain, "  "+c.Letter+": "+flat(c.Text))
		}
	case v.Done:
		add(green, doneLine(v))
		add(plain, flat(v.Explanation))
	case v.Question == "":
	case v.Notes.Prediction != "":
		add(dim, "Your prediction: "+choiceOf(v.Text, v.Notes.Prediction))
	default:
		add(yellow, "Predict first (p): "+flat(v.Question))
	}
	if !v.Done {
		for i, hint := range v.Hints {
			add(yellow, fmt.Sprintf("Hint %d: %s", i+1, hint))
		}
	}
	switch {
	case v.Doing != "":
		add(bold, "Running "+v.Doing)
		for _, line := range v.Output[max(0, len(v.Output)-3):] {
			rows = append(rows, row{dim, "  " + line})
		}
	case v.Checking != "":
		add(bold, "Checking: "+v.Checking)
	case !v.Look.Installed:
		add(plain, "The lab is not installed: "+v.Look.Why)
	}
	add(green, v.Told)
	add(red, cmp.Or(t.message, v.Failed))
	add(red, v.Trouble)
	if v.Look.NoPackets != "" {
		add(dim, "Note: "+v.Look.NoPackets)
	}
	return slices.DeleteFunc(rows, func(r row) bool { return r.text == "" })
}

func doneLine(v View) string {
	line := "Done in " + lasted(v.Notes).String()
	if v.Notes.Hints > 0 {
		line += " with " + counted(v.Notes.Hints, "hint")
	}
	switch {
	case v.Broken:
		return "Fixed: d" + strings.TrimPrefix(line, "D")
	case lasted(v.Notes) == 0: // another lab, or notes that were deleted
		line = "Done"
	}
	answer := choiceOf(v.Text, v.Answer)
	switch v.Notes.Prediction {
	case "":
		return line + ". The question was: " + flat(v.Question) + " The answer: " + answer
	case v.Answer:
		return line + ". Your prediction was right: " + answer
	}
	return line + ". Your prediction was: " + choiceOf(v.Text, v.Notes.Prediction) + ". Right is: " + answer
}

func choiceOf(t Text, letter string) string {
	for _, c := range t.Choices {
		if c.Letter == letter {
			return flat(c.Text)
		}
	}
	return letter
}

func mark(v probe.Verdict) string {
	switch v {
	case probe.Proven:
		return "[x]"
	case probe.Refuted:
		return "[!]"
	case probe.Inconclusive:
		return "[?]"
	}
	return "[ ]"
}

func verdictStyle(v probe.Verdict) style {
	switch v {
	case probe.Proven:
		return green
	case probe.Refuted:
		return red
	case probe.Inconclusive:
		return yellow
	}
	return plain
}

func requestRow(r Request) row {
	status, look := fmt.Sprint(r.Status), plain
	switch r.Outcome() {
	case "none":
		status, look = "---", red
	case "refused":
		look = red
	case "delayed":
		look = yellow
	case "ok":
		look = green
	}
	return row{look, fmt.Sprintf("%s  %-8s %-4s %-14s %s %9s %-8s %s", r.At.Local().Format("15:04:05.0"), r.Who,
		r.Method, r.Path, status, r.Latency.Round(100*time.Microsecond), delayedWord(r), wayText(r))}
}

func delayedWord(r Request) string {
	if r.Delayed {
		return "delayed"
	}
	return ""
}

func wayText(r Request) string {
	switch r.Way {
	case Through:
		return "through waypoint"
	case Around:
		return "straight to pod"
	case Unknown:
		return "log not readable"
	}
	return "..."
}

// flat makes one line of a paragraph of Markdown.
func flat(markdown string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(markdown), " "), "`", "")
}

// wrap breaks a line between words.
func wrap(text string, width int) []string {
	if utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	var lines []string
	line := indent
	for _, word := range strings.Fields(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width && strings.TrimSpace(line) != "" {
			lines = append(lines, line)
			line = indent
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// cut shortens a line to a width.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(0, width-1)]) + "…"
}

// Print writes the station as plain text, for a pipe or a CI job.
func Print(w io.Writer, v View) error {
	var b strings.Builder
	if v.Broken {
		fmt.Fprintf(&b, "%s\n\n%s\n", v.Station.Title, v.Goal)
	} else {
		fmt.Fprintf(&b, "Ambient lab workshop, station %d of %d: %s\n\n%s\n", v.Index+1, v.Count, v.Station.Title,
			v.Goal)
	}
	if len(v.Items) > 0 {
		fmt.Fprintf(&b, "\nDone when these claims are proven:\n")
		for _, item := range v.Items {
			fmt.Fprintf(&b, "  %s %s\n", mark(item.Verdict), item.Title)
			if v.Broken && item.Verdict != "" {
				fmt.Fprintf(&b, "      %s\n", item.Text)
			}
		}
	}
	if v.Question != "" {
		fmt.Fprintf(&b, "\nPredict first: %s\n", v.Question)
	}
	for _, c := range v.Choices {
		fmt.Fprintf(&b, "  %s: %s\n", c.Letter, c.Text)
	}
	if v.Steps != "" {
		fmt.Fprintf(&b, "\n%s\n", v.Steps)
	}
	if v.Broken {
		for i, hint := range v.Hints {
			fmt.Fprintf(&b, "\nHint %d: %s\n", i+1, hint)
		}
	}
	if v.Broken && v.Done {
		fmt.Fprintf(&b, "\n%s.\n\n%s\n", doneLine(v), v.Explanation)
	}
	for _, line := range []string{v.Told, v.Failed, v.Trouble} {
		if line != "" {
			fmt.Fprintf(&b, "\n%s\n", line)
		}
	}
	if v.Look.NoPackets != "" {
		fmt.Fprintf(&b, "\nNote: %s.\n", v.Look.NoPackets)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
