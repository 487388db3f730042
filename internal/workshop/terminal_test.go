package workshop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
	"ambientlab/internal/tmuxtest"
)

// asTerminal makes the test program show the workshop on its terminal, with the notes in the file that it names.
const asTerminal = "WORKSHOP_TEST_NOTES"

func TestMain(m *testing.M) {
	if file := os.Getenv(asTerminal); file != "" {
		os.Exit(showTerminal(file))
	}
	os.Exit(m.Run())
}

func showTerminal(file string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lab := &fakeLab{look: applications()}
	feed := NewFeed(nil)
	e, err := New(lab, feed, claims(), file, "mage")
	if err == nil {
		err = e.Open(ctx)
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e.Go(2)
	go e.Run(ctx)
	err = Terminal(ctx, e, feed, os.Stdin, os.Stdout, os.Getenv, func() string { return "the page is at http://x" })
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// TestKeys presses every key on a terminal of 80 by 24, and leaves with Ctrl-C: the terminal is as it was.
func TestKeys(t *testing.T) {
	m := tmuxtest.New(t, 80, 24)
	dir := t.TempDir()
	m.Press("stty -g > "+filepath.Join(dir, "before"), "Enter")
	m.Press("clear; "+asTerminal+"="+filepath.Join(t.TempDir(), "notes.json")+" "+os.Args[0], "Enter")
	screen := m.Shows("3 of 10: A waypoint for appb", "[ ] claim waypoint-appa", "Predict first (p)", "q quit")
	for _, line := range strings.Split(screen, "\n") {
		if strings.Contains(line, "…") {
			t.Errorf("a line is cut at 80 columns: %s", line)
		}
	}
	m.Press("p")
	m.Shows("b: those from appa only")
	m.Press("b")
	m.Shows("Your prediction: those from appa only")
	m.Press("h")
	m.Shows("Hint 1: A waypoint is a Gateway object")
	m.Press("y")
	m.Shows("YAML, and what", "to do: create Gateway default/appb-waypoint", "# a comment", "goes back")
	m.Press("x")
	m.Shows("Hint 1")
	m.Press("k")
	m.Shows("The same with kubectl", "kubectl apply -f -")
	m.Press("x")
	m.Press("s")
	m.Shows("$ mage sm:waypoint", "Try next")
	m.Press("x")
	m.Press("c")
	m.Shows("[!] claim waypoint-appa")
	m.Press("e")
	m.Shows("refuted: status: expected 200")
	m.Press("x")
	m.Press("o")
	m.Shows("the page is at http://x")
	m.Press("d")
	m.Shows("[x] claim waypoint-gateway", "Your prediction was right", "with 1 hint", "n next station")
	m.Press("n")
	m.Shows("4 of 10: Delay half of the requests")
	m.Press("l")
	m.Shows("Stations: its key goes to one", "3  A waypoint for appb", "done in", "1 hint")
	m.Press("3")
	m.Shows("3 of 10")
	m.Press("u")
	m.Shows("[!] claim waypoint-appa")
	m.Press("C-c")
	for m.Run("display-message", "-p", "-t", "w", "#{pane_current_command}") != "sh\n" {
		<-time.After(20 * time.Millisecond) // keys that the program still reads are lost
	}
	m.Press("clear; stty -g > "+filepath.Join(dir, "after")+"; echo en''ded", "Enter")
	m.Shows("ended")
	before, err := os.ReadFile(filepath.Join(dir, "before"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, "after"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the terminal was %s and is %s (%v)", before, after, err)
	}
	if state := m.Run("display-message", "-p", "-t", "w", "#{alternate_on} #{cursor_flag}"); state != "0 1\n" {
		t.Errorf("other screen and cursor: %s", state)
	}
}

func TestPrint(t *testing.T) {
	lab := &fakeLab{look: applications(upTo("waypoint")...)}
	e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
	var out bytes.Buffer
	if err := Print(&out, e.View()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"3 of 10: A waypoint for appb", "[ ] claim waypoint-appa", "mage sm:waypoint"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is missing in:\n%s", text, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("plain output holds escape sequences")
	}
}

func TestSplitKeys(t *testing.T) {
	got := strings.Join(splitKeys("xc\x1b[B\x1b[6~ä\x1b\x03\x1b["), "|")
	if want := "x|c|\x1b[B|\x1b[6~|ä|\x1b|\x03|\x1b["; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWrapAndCut(t *testing.T) {
	for _, c := range []struct {
		text string
		want string
	}{
		{"short", "short"},
		{"one two three four", "one two|three four"},
		{"  one two three", "  one two|  three"},
		{"averyverylongword x", "averyverylongword|x"},
	} {
		if got := strings.Join(wrap(c.text, 10), "|"); got != c.want {
			t.Errorf("wrap(%q) is %q, want %q", c.text, got, c.want)
		}
	}
	if got := cut("äöüäöü", 4); got != "äöü…" {
		t.Errorf("cut is %q", got)
	}
}

// TestScroll scrolls a text with lines that are wider than the screen to its end and back.
func TestScroll(t *testing.T) {
	m := &terminal{size: func() (int, int) { return 40, 12 }}
	var text []row
	for i := range 20 {
		text = append(text, row{plain, fmt.Sprintf("%d %s", i, strings.Repeat("word ", 20))})
	}
	m.show("A text", append(text, row{plain, "the end"}))
	shown := func() string {
		var lines []string
		for _, r := range m.rows(m.size()) {
			lines = append(lines, r.text)
		}
		return strings.Join(lines, "\n")
	}
	for range 30 {
		m.press(t.Context(), " ")
		shown()
	}
	if got := shown(); !strings.Contains(got, "the end") {
		t.Errorf("the end is not shown:\n%s", got)
	}
	for range 30 {
		m.press(t.Context(), "\x1b[A")
		shown()
	}
	if got := shown(); !strings.Contains(got, "0 word") {
		t.Errorf("the beginning is not shown:\n%s", got)
	}
}

// TestEveryStationFits draws every station on a terminal of 80 by 24, as it is first, with all hints and an error, and
// when it is done: no line is cut, and where not all lines fit, the screen says so.
func TestEveryStationFits(t *testing.T) {
	lab := &fakeLab{look: withPrometheus(applications(append(upTo("strict"), lesson.Telemetry())...))}
	e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
	e.claims = lesson.Claims()
	m := &terminal{engine: e, feed: NewFeed(nil), size: func() (int, int) { return 80, 24 }}
	for i, s := range e.stations {
		mustDo(t, e.Go(i))
		for state, change := range map[string]func(){
			"first":      func() {},
			"predicting": func() { m.predicting = true },
			"all hints": func() {
				m.predicting = false
				e.progress.Stations[s.Name] = Notes{Hints: maxHints}
				e.failed = strings.Repeat("what went wrong ", 8)
			},
			"done": func() {
				e.report, e.failed = &probe.Report{}, ""
				e.progress.Stations[s.Name] = Notes{Prediction: "a", Done: time.Now()}
			},
		} {
			change()
			rows := m.rows(80, 24)
			if len(rows) != 24 {
				t.Errorf("%s, %s: %d lines", s.Name, state, len(rows))
			}
			for _, r := range rows {
				if r.text != cut(r.text, 80) || strings.HasPrefix(r.text, "…") {
					t.Errorf("%s, %s: %s", s.Name, state, r.text)
				}
			}
			m.predicting, e.report, e.failed = false, nil, ""
		}
	}
	small := m.rows(80, 8)
	if len(small) != 8 || !strings.HasPrefix(small[5].text, "… a larger window") {
		t.Errorf("on 8 lines: %q", small)
	}
}
