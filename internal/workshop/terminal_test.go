package workshop

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// tmux is a terminal of 80 by 24 with a shell.
type tmux struct {
	t      *testing.T
	socket string
}

func newTmux(t *testing.T) tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux, which this test needs to press keys on a terminal, is not installed")
	}
	m := tmux{t, filepath.Join(t.TempDir(), "tmux")}
	m.run("-f", "/dev/null", "new-session", "-d", "-s", "w", "-x", "80", "-y", "24", "env PS1='ready> ' sh")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", m.socket, "kill-server").Run() })
	m.shows("ready>")
	return m
}

func (m tmux) run(args ...string) string {
	m.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", m.socket}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (m tmux) press(keys ...string) { m.run(append([]string{"send-keys", "-t", "w"}, keys...)...) }

func (m tmux) screen() string { return m.run("capture-pane", "-p", "-t", "w") }

// shows waits until the screen has every text, and gives it.
func (m tmux) shows(texts ...string) string {
	m.t.Helper()
	missing := ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		screen := m.screen()
		missing = ""
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				missing = text
			}
		}
		if missing == "" {
			return screen
		}
		<-time.After(50 * time.Millisecond)
	}
	m.t.Fatalf("the screen lacks %q:\n%s", missing, m.screen())
	return ""
}

// TestKeys presses every key on a terminal of 80 by 24, and leaves with Ctrl-C: the terminal is as it was.
func TestKeys(t *testing.T) {
	m := newTmux(t)
	m.press("stty -g > "+filepath.Join(filepath.Dir(m.socket), "before"), "Enter")
	m.press("clear; "+asTerminal+"="+filepath.Join(t.TempDir(), "notes.json")+" "+os.Args[0], "Enter")
	screen := m.shows("3 of 10: A waypoint for appb", "[ ] claim waypoint-appa", "Predict first (p)", "q quit")
	for _, line := range strings.Split(screen, "\n") {
		if strings.Contains(line, "…") {
			t.Errorf("a line is cut at 80 columns: %s", line)
		}
	}
	m.press("p")
	m.shows("b: those from appa only")
	m.press("b")
	m.shows("Your prediction: those from appa only")
	m.press("h")
	m.shows("Hint 1: A waypoint is a Gateway object")
	m.press("y")
	m.shows("YAML, and what", "to do: create Gateway default/appb-waypoint", "# a comment", "goes back")
	m.press("x")
	m.shows("Hint 1")
	m.press("k")
	m.shows("The same with kubectl", "kubectl apply -f -")
	m.press("x")
	m.press("s")
	m.shows("$ mage sm:waypoint", "Try next")
	m.press("x")
	m.press("c")
	m.shows("[!] claim waypoint-appa")
	m.press("e")
	m.shows("refuted: status: expected 200")
	m.press("x")
	m.press("o")
	m.shows("the page is at http://x")
	m.press("d")
	m.shows("[x] claim waypoint-gateway", "Your prediction was right", "with 1 hint", "n next station")
	m.press("n")
	m.shows("4 of 10: Delay half of the requests")
	m.press("l")
	m.shows("Stations: its key goes to one", "3  A waypoint for appb", "done in", "1 hint")
	m.press("3")
	m.shows("3 of 10")
	m.press("u")
	m.shows("[!] claim waypoint-appa")
	m.press("C-c")
	for m.run("display-message", "-p", "-t", "w", "#{pane_current_command}") != "sh\n" {
		<-time.After(20 * time.Millisecond) // keys that the program still reads are lost
	}
	m.press("clear; stty -g > "+filepath.Join(filepath.Dir(m.socket), "after")+"; echo en''ded", "Enter")
	m.shows("ended")
	before, err := os.ReadFile(filepath.Join(filepath.Dir(m.socket), "before"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(filepath.Dir(m.socket), "after"))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the terminal was %s and is %s (%v)", before, after, err)
	}
	if state := m.run("display-message", "-p", "-t", "w", "#{alternate_on} #{cursor_flag}"); state != "0 1\n" {
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
