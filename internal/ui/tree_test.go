package ui

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/engine"
)

// screen is as much of a terminal as the tree uses: lines, cursor up, clear to the end. It fails the test on anything
// else, and on a line that would wrap.
type screen struct {
	t      *testing.T
	width  int
	height int
	lines  []string
}

var (
	sgr    = regexp.MustCompile("\x1b\\[[0-9;]*m")
	motion = regexp.MustCompile("^\x1b\\[([0-9]+)A\r\x1b\\[J")
)

func (s *screen) Write(data []byte) (int, error) {
	text := string(data)
	if m := motion.FindStringSubmatch(text); m != nil {
		var up int
		if _, err := fmt.Sscan(m[1], &up); err != nil {
			s.t.Fatal(err)
		}
		if up >= s.height {
			s.t.Errorf("the cursor goes up %d lines on a screen of %d", up, s.height)
		}
		s.lines = s.lines[:len(s.lines)-up]
		text = text[len(m[0]):]
	}
	text = sgr.ReplaceAllString(text, "")
	if strings.Contains(text, "\x1b") {
		s.t.Errorf("escape codes in %q", text)
	}
	if text != "" {
		if !strings.HasSuffix(text, "\n") {
			s.t.Errorf("%q does not end its line", text)
		}
		s.lines = append(s.lines, strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
	}
	return len(data), nil
}

func (s *screen) text() string { return strings.Join(s.lines, "\n") + "\n" }

func testTree(t *testing.T, width, height int, env func(string) string) (*tree, *screen, func(time.Time)) {
	s := &screen{t: t, width: width, height: height}
	now := at(0)
	tr := newTree(s, env, func() (int, int) { return width, height }, func() time.Time { return now })
	return tr, s, func(to time.Time) { now = to }
}

func TestTree(t *testing.T) {
	for name, tc := range map[string]struct {
		width, height int
		env           func(string) string
	}{
		"wide":   {100, 30, environment("LANG", "en_US.UTF-8")},
		"narrow": {50, 30, environment("LC_ALL", "C.utf8", "NO_COLOR", "1")},
		"ascii":  {80, 30, environment("LANG", "C")},
		"low":    {80, 6, environment("LANG", "C.UTF-8")},
	} {
		t.Run(name, func(t *testing.T) {
			tr, s, setNow := testTree(t, tc.width, tc.height, tc.env)
			var film strings.Builder
			for _, ev := range script() {
				setNow(ev.Time)
				tr.Handle(ev)
				fmt.Fprintf(&film, "--- %s %s\n%s", ev.Kind, ev.Step, s.text())
				for _, line := range s.lines {
					if n := len([]rune(line)); n >= tc.width && ev.Kind != engine.Note &&
						!strings.Contains(line, "inotify limits") {
						t.Errorf("%d columns: %s", n, line)
					}
				}
			}
			tr.Failure(failure())
			fmt.Fprintf(&film, "--- the end\n%s", s.text())
			golden(t, "tree-"+name+".txt", film.String())
		})
	}
}

func TestTreeColours(t *testing.T) {
	for name, tc := range map[string]struct {
		env  func(string) string
		want bool
	}{
		"colour":   {environment(), true},
		"no color": {environment("NO_COLOR", "1"), false},
	} {
		var out bytes.Buffer
		tr := newTree(&out, tc.env, func() (int, int) { return 80, 24 }, time.Now)
		for _, ev := range script() {
			tr.Handle(ev)
		}
		tr.Failure(failure())
		if got := sgr.MatchString(out.String()); got != tc.want {
			t.Errorf("%s: coloured %v", name, got)
		}
	}
}

// What a step said once of a change stays readable when the step is over, although its row says something else by then,
// and a change that needs no words leaves no line.
func TestTreeKeepsDetails(t *testing.T) {
	tr, s, _ := testTree(t, 60, 24, environment("LANG", "C"))
	change := func(object, action, detail string) {
		tr.Handle(engine.Event{
			Kind: engine.StepChanged, Step: "a", Title: "Load balancer",
			Change: &engine.Change{Object: object, Action: action, Detail: detail},
		})
	}
	tr.Handle(engine.Event{
		Time: at(0), Kind: engine.PlanStarted, Title: "Taking it back",
		Steps: []engine.StepInfo{{ID: "a", Title: "Load balancer"}},
	})
	tr.Handle(engine.Event{Time: at(0), Kind: engine.StepStarted, Step: "a"})
	change("ConfigMap x/mine", engine.Delete, "")
	change("CustomResourceDefinition tools.lab.test", engine.Update,
		"left in place: Tool x/theirs is not the lab's and needs it")
	change("ConfigMap x/a", engine.Update, "given back: it was there before the lab")
	tr.Handle(engine.Event{Kind: engine.Note, Step: "a", Message: "the limits are the host's"})
	tr.Handle(engine.Event{Time: at(1), Kind: engine.StepDone, Step: "a", Duration: time.Second})
	tr.Handle(engine.Event{
		Time: at(1), Kind: engine.PlanDone, Title: "Taking it back", Duration: time.Second,
		Result: &engine.Result{},
	})
	want := `Load balancer: update CustomResourceDefinition
  tools.lab.test (left in place: Tool x/theirs is not the
  lab's and needs it)
Load balancer: update ConfigMap x/a (given back: it was
  there before the lab)
the limits are the host's
Taking it back  1.0s  no changes
` + "`- + Load balancer  1.0s\n"
	if s.text() != want {
		t.Errorf("the screen says\n%s\nwant\n%s", s.text(), want)
	}
}

// The tree moves by itself while a plan runs, and only then.
func TestTreeAnimates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{t: t, width: 80, height: 24}
		tr := newTree(s, environment("LANG", "C"), func() (int, int) { return 80, 24 }, time.Now)
		tr.animate()
		began := time.Now()
		tr.Handle(engine.Event{
			Time: began, Kind: engine.PlanStarted, Title: "Plan",
			Steps: []engine.StepInfo{{ID: "a", Title: "A"}},
		})
		tr.Handle(engine.Event{Time: began, Kind: engine.StepStarted, Step: "a"})
		time.Sleep(1250 * time.Millisecond) // of synctest's fake time: the tree's ticker runs, and no goroutine waits
		synctest.Wait()
		if want := "Plan  1.2s\n`- | A  1.2s\n"; s.text() != want {
			t.Errorf("after 1.25 s %q, want %q", s.text(), want)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		if err := tr.Close(); err != nil {
			t.Fatal(err)
		}
		tr.Handle(engine.Event{Kind: engine.Note, Message: "after the end"})
		if strings.Contains(s.text(), "after") {
			t.Error("a closed tree still writes")
		}
	})
}
