//go:build e2e

package workshop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"ambientlab/internal/chromiumtest"
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
	b := chromiumtest.NewTab(t, chromiumtest.Allocator(t), 5*time.Minute, func(asked string) bool {
		return strings.HasPrefix(asked, "http://"+page.listener.Addr().String())
	})

	b.Open(page.Address(), 1280, "light", false)
	b.Until("the station", `document.querySelectorAll('.claims .open').length == 2`)
	b.Until("dots straight to the pod", `!!document.querySelector('svg.wide .dots g.dot')`)
	b.Key(`document.getElementById('choice-b')`, kb.Enter)
	b.Until("the prediction", `document.getElementById('choice-b').getAttribute('aria-pressed') == 'true'`)
	b.Until("the focus is kept", `document.activeElement.id == 'choice-b'`)

	changed := time.Now()
	lab.change("Service appb", func() {
		lab.look.Lessons = lesson.States(lesson.Apps(), lesson.Waypoint())
		lab.holds = []string{"waypoint-appa", "waypoint-gateway"}
	})
	b.Until("done without a reload", `document.querySelectorAll('.claims .proven').length == 2`)
	if took := time.Since(changed); took > 3*time.Second+lab.takes {
		t.Errorf("done %s after the change", took)
	}
	b.Until("the explanation", `document.body.innerText.includes('Your prediction was right')`)
	b.Until("only cells through the waypoint",
		`[...document.querySelectorAll('.strip')].every(s => s.lastElementChild && `+
			`!s.lastElementChild.classList.contains('around'))`)
	source.mu.Lock()
	source.through[probe.Gateway] = false
	source.mu.Unlock()
	changed = time.Now()
	b.Until("a dot around the waypoint", `[...document.querySelectorAll('g.dot title')]`+
		`.some(t => t.textContent.includes('from gateway') && t.textContent.includes('straight to pod'))`)
	t.Logf("a request around the waypoint is drawn %s after the change",
		time.Since(changed).Round(10*time.Millisecond))
	b.Key(`document.getElementById('tab-evidence')`, kb.ArrowRight)
	b.Until("the YAML",
		`document.getElementById('panel-yaml').innerText.includes('create Gateway default/appb-waypoint')`)

	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			b.Open(page.Address(), width, scheme, width == 390)
			b.Until("the page again", `document.querySelectorAll('.claims li').length == 2`)
			b.Until("dots", `!!document.querySelector('.dots g.dot')`)
			b.Until("nothing is wider than the window", `document.documentElement.scrollWidth <= innerWidth`)
			b.Until("one map is seen",
				`[...document.querySelectorAll('.map svg')].filter(s => s.checkVisibility()).length == 1`)
			if width == 390 {
				b.Until("no dot moves",
					`![...document.querySelectorAll('.dots g.dot')].some(d => d.querySelector('animateMotion'))`)
			}
			b.Readable()
			b.Picture(fmt.Sprintf("workshop-%d-%s.png", width, scheme))
		}
	}
	b.Complaints()
	if e.View().Notes.Prediction != "b" {
		t.Error("the engine did not get the prediction")
	}
}
