package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/engine"
)

// tree redraws the steps of the running plan in place. Notes scroll by above it.
type tree struct {
	mu    sync.Mutex
	out   io.Writer
	size  func() (width, height int)
	now   func() time.Time
	style style

	picture picture
	live    bool // a plan is running
	drawn   int  // lines of the tree now on the screen
	closed  bool

	stop    chan struct{}
	stopped sync.WaitGroup
}

func newTree(w io.Writer, env func(string) string, size func() (width, height int), now func() time.Time) *tree {
	return &tree{out: w, size: size, now: now, style: styleFor(env), stop: make(chan struct{})}
}

// animate redraws the tree while a plan runs, for the spinners and the durations.
func (t *tree) animate() {
	t.stopped.Go(func() {
		tick := time.NewTicker(spinEvery)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
				t.mu.Lock()
				if t.live && !t.closed {
					t.draw("")
				}
				t.mu.Unlock()
			}
		}
	})
}

// Handle implements engine.Sink.
func (t *tree) Handle(ev engine.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	switch ev.Kind {
	case engine.PlanStarted:
		t.picture = picture{title: oneLine(ev.Title), began: ev.Time}
		for _, info := range ev.Steps {
			info.Title = oneLine(info.Title)
			t.picture.rows = append(t.picture.rows, row{info: info})
		}
		t.live = true
		t.draw("")
	case engine.PlanDone, engine.PlanFailed:
		t.picture.over, t.picture.took, t.picture.tally = true, ev.Duration, summary(ev.Result)
		t.live = false
		t.draw("")
		t.drawn = 0 // the tree of an ended plan stays on the screen
	case engine.Note:
		t.draw(oneLine(ev.Message) + "\n")
	case engine.Warning: // the target prints its warnings itself
	default:
		t.step(ev)
		t.draw(t.lasting(ev))
	}
}

// lasting returns the text of an event that stays above the tree. A row has room for one message, which the end of the
// step replaces. Without lasting, the detail of a change (an old and a new value, the reason why an object was kept)
// would be on the screen for a moment only.
func (t *tree) lasting(ev engine.Event) string {
	if ev.Kind != engine.StepChanged || ev.Change == nil || ev.Change.Detail == "" {
		return ""
	}
	width, _ := t.size()
	var b strings.Builder
	for i, line := range wrap(oneLine(ev.Title)+": "+changeText(ev.Change), max(width-3, minimumWidth/2)) {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (t *tree) step(ev engine.Event) {
	for i := range t.picture.rows {
		r := &t.picture.rows[i]
		if r.info.ID != ev.Step {
			continue
		}
		switch ev.Kind {
		case engine.StepStarted:
			r.state, r.began = running, ev.Time
		case engine.StepProgress:
			r.message = ev.Message
		case engine.StepChanged:
			r.message = changeText(ev.Change)
		case engine.StepUnchanged:
			r.state, r.took, r.message = held, ev.Duration, ev.Message
		case engine.StepDone:
			r.state, r.took, r.message = done, ev.Duration, ev.Message
		case engine.StepFailed:
			r.state, r.took, r.message = failed, ev.Duration, ev.Message
		case engine.StepCanceled:
			r.state, r.took, r.message = cancelled, ev.Duration, ev.Message
		}
		return
	}
}

// draw replaces the tree on the screen, if there is one, and writes text above it, in one write.
func (t *tree) draw(above string) {
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", t.drawn)
	}
	b.WriteString(above)
	t.drawn = 0
	if t.live || t.picture.over {
		width, height := t.size()
		limit := max(height-1, 3)
		if t.picture.over {
			limit = 0 // the last picture is not redrawn, so it may be higher than the screen
		}
		lines := t.picture.frame(t.style, t.now(), width-1, limit)
		for _, line := range lines {
			b.WriteString(line + "\n")
		}
		t.drawn = len(lines)
	}
	if t.picture.over {
		t.picture = picture{}
	}
	// An error of writing to standard error cannot be reported anywhere.
	_, _ = io.WriteString(t.out, b.String())
}

// Failure implements Renderer.
func (t *tree) Failure(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil || t.closed {
		return
	}
	width, _ := t.size()
	t.draw(t.colourLabels(FailureText(err, width)))
}

// colourLabels makes the labels at the left margin bold.
func (t *tree) colourLabels(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if len(line) > labelWidth && line[0] != ' ' {
			lines[i] = t.style.paint(sgrBold, line[:labelWidth]) + line[labelWidth:]
		}
	}
	return strings.Join(lines, "\n")
}

// Close implements Renderer.
func (t *tree) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	if t.live {
		t.draw("")
	}
	t.closed = true
	t.mu.Unlock()
	close(t.stop)
	t.stopped.Wait()
	return nil
}
