//go:build e2e

package workshop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
)

// TestPageInChromium uses the page in a real browser: it notices a change of the lab, draws requests through and around
// the waypoint, works by keyboard, and fits a phone and a desktop, by day and by night. SM_SCREENSHOTS names a folder
// for pictures of what was seen.
func TestPageInChromium(t *testing.T) {
	source := &fakeSource{
		through: map[probe.Caller]bool{probe.Appa: true, probe.Gateway: true}, log: make(chan observe.Crossing, 100),
	}
	lab := &fakeLab{look: applications(), takes: 300 * time.Millisecond}
	page, e := served(t, lab, NewFeed(func(context.Context) (Source, error) { return source, nil }), 2)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	b := newBrowser(t, allocator, page)

	b.open(1280, "light", false)
	b.until("the station", `document.querySelectorAll('.claims .open').length == 2`)
	b.until("dots straight to the pod", `!!document.querySelector('svg.wide .dots g.dot')`)
	b.key("predict by keyboard", `document.getElementById('choice-b')`, kb.Enter)
	b.until("the prediction", `document.getElementById('choice-b').getAttribute('aria-pressed') == 'true'`)
	b.until("the focus is kept", `document.activeElement.id == 'choice-b'`)

	changed := time.Now()
	lab.change("Service appb", func() {
		lab.look.Lessons = lesson.States(lesson.Apps(), lesson.Waypoint())
		lab.holds = []string{"waypoint-appa", "waypoint-gateway"}
	})
	b.until("done without a reload", `document.querySelectorAll('.claims .proven').length == 2`)
	if took := time.Since(changed); took > 3*time.Second+lab.takes {
		t.Errorf("done %s after the change", took)
	}
	b.until("the explanation", `document.body.innerText.includes('Your prediction was right')`)
	b.until("only cells through the waypoint",
		`[...document.querySelectorAll('.strip')].every(s => s.lastElementChild && `+
			`!s.lastElementChild.classList.contains('around'))`)
	source.mu.Lock()
	source.through[probe.Gateway] = false
	source.mu.Unlock()
	changed = time.Now()
	b.until("a dot around the waypoint", `[...document.querySelectorAll('g.dot title')]`+
		`.some(t => t.textContent.includes('from gateway') && t.textContent.includes('straight to pod'))`)
	t.Logf("a request around the waypoint is drawn %s after the change",
		time.Since(changed).Round(10*time.Millisecond))
	b.key("the tab YAML by keyboard", `document.getElementById('tab-evidence')`, kb.ArrowRight)
	b.until("the YAML",
		`document.getElementById('panel-yaml').innerText.includes('create Gateway default/appb-waypoint')`)

	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			b.open(width, scheme, width == 390)
			b.until("the page again", `document.querySelectorAll('.claims li').length == 2`)
			b.until("dots", `!!document.querySelector('.dots g.dot')`)
			b.until("nothing is wider than the window", `document.documentElement.scrollWidth <= innerWidth`)
			b.until("one map is seen",
				`[...document.querySelectorAll('.map svg')].filter(s => s.checkVisibility()).length == 1`)
			if width == 390 {
				b.until("no dot moves",
					`![...document.querySelectorAll('.dots g.dot')].some(d => d.querySelector('animateMotion'))`)
			}
			b.picture(fmt.Sprintf("workshop-%d-%s.png", width, scheme))
		}
	}
	b.complaints()
	if e.View().Notes.Prediction != "b" {
		t.Error("the engine did not get the prediction")
	}
}

type browser struct {
	t    *testing.T
	ctx  context.Context
	page *Page

	mu    sync.Mutex
	wrong []string
}

func newBrowser(t *testing.T, allocator context.Context, page *Page) *browser {
	ctx, stop := chromedp.NewContext(allocator)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(func() { cancel(); stop() })
	b := &browser{t: t, ctx: ctx, page: page}
	complain := func(format string, args ...any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
	}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "http://"+page.listener.Addr().String()) &&
				!strings.HasPrefix(e.Request.URL, "data:") {
				complain("the page asks for %s", e.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			complain("console: %s", e.Type)
		case *runtime.EventExceptionThrown:
			complain("exception: %s", e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			complain("log: %s: %s", e.Entry.Level, e.Entry.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *browser) open(width int64, scheme string, still bool) {
	b.t.Helper()
	motion := "no-preference"
	if still {
		motion = "reduce"
	}
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
		},
	})
	if err == nil {
		err = chromedp.Do(b.ctx, chromedp.EmulateViewport(width, 844), chromedp.Navigate(b.page.Address()))
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// until waits until an expression is true in the page.
func (b *browser) until(what, expression string) {
	b.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		so, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expression))
		if err != nil {
			b.t.Fatalf("%s: %v", what, err)
		}
		if so {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	b.picture("failed.png")
	b.t.Fatalf("%s: not seen", what)
}

// key focuses an element and presses a key on it.
func (b *browser) key(what, element, key string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`(`+element+`.focus(), true)`)); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	if err := chromedp.Do(b.ctx, chromedp.KeyEvent(key)); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *browser) complaints() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, wrong := range b.wrong {
		b.t.Error(wrong)
	}
}

func (b *browser) picture(name string) {
	folder := os.Getenv("SM_SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}
