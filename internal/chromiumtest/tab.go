//go:build e2e

package chromiumtest

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
)

// Allocator gives the context in which tabs are opened. Chromium ends with the test.
func Allocator(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	return allocator
}

// Tab is a tab of Chromium.
type Tab struct {
	// Context is that of chromedp.
	Context context.Context

	t     *testing.T
	mu    sync.Mutex
	wrong []string
}

// NewTab opens a tab, which is closed with the test or after limit. A page in it may ask for data URLs, and for what is
// at an address that mayAsk accepts.
func NewTab(t *testing.T, allocator context.Context, limit time.Duration, mayAsk func(address string) bool) *Tab {
	t.Helper()
	ctx, stop := chromedp.NewContext(allocator)
	ctx, cancel := context.WithTimeout(ctx, limit)
	t.Cleanup(func() { cancel(); stop() })
	tab := &Tab{t: t, Context: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			if !mayAsk(e.Request.URL) && !strings.HasPrefix(e.Request.URL, "data:") {
				tab.complain("the page asks for %s", e.Request.URL)
			}
		case *runtime.EventConsoleAPICalled:
			tab.complain("console: %s", e.Type)
		case *runtime.EventExceptionThrown:
			tab.complain("exception: %s", e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			tab.complain("log: %s: %s", e.Entry.Level, e.Entry.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

func (tab *Tab) complain(format string, args ...any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.wrong = append(tab.wrong, fmt.Sprintf(format, args...))
}

// Open opens an address in a window of a width, in a colour scheme, dark or light, and with motion or reduced motion.
func (tab *Tab) Open(address string, width int64, scheme string, still bool) {
	tab.t.Helper()
	motion := "no-preference"
	if still {
		motion = "reduce"
	}
	_, err := chromedp.Call(tab.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
		},
	})
	if err == nil {
		err = chromedp.Do(tab.Context, chromedp.EmulateViewport(width, 844), chromedp.Navigate(address))
	}
	if err != nil {
		tab.t.Fatal(err)
	}
}

//revive:disable:line-length-limit JavaScript

// inspect looks at every visible text and every label of the page as a reader would: is it large enough, does it stand
// out from its ground, does it stay inside, does anything lie on anything else?
const inspect = `(() => {
  const found = [];
  const rgb = c => (c.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; })
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  document.querySelectorAll('details').forEach(d => d.open = true);
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  for (let node; node = walker.nextNode();) {
    const e = node.parentElement, text = node.textContent.trim();
    if (!text || e.closest('title,.hidden,.skip,style') || !e.checkVisibility()) continue;
    texts++;
    const style = getComputedStyle(e);
    const svg = e.closest('svg');
    const scale = svg && e.getScreenCTM ? e.getScreenCTM().a : 1;
    const size = parseFloat(style.fontSize) * scale;
    if (size < 12) found.push(size.toFixed(1) + 'px is too small: ' + text.slice(0, 40));
    const range = document.createRange(); range.selectNodeContents(node);
    for (const box of range.getClientRects())
      if (box.left < -1 || box.right > innerWidth + 1) { found.push('runs out of the page: ' + text.slice(0, 40)); break; }
    if (!svg) {
      const a = light(rgb(style.color)), b = light(ground(e));
      const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      if (contrast < 4.5) found.push('contrast ' + contrast.toFixed(1) + ': ' + text.slice(0, 40));
    }
  }
  if (texts < 50) found.push('only ' + texts + ' texts are visible');
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page is ' + document.documentElement.scrollWidth + ' wide');
  const over = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  for (const svg of document.querySelectorAll('.topology svg, .map svg')) {
    if (!svg.checkVisibility()) continue;
    const labels = [...svg.querySelectorAll('.label')], boxes = [...svg.querySelectorAll('.box rect')];
    labels.forEach((l, i) => {
      const r = l.querySelector('rect').getBoundingClientRect(), t = l.querySelector('text').getBoundingClientRect();
      if (t.width > r.width - 4) found.push('label is too narrow: ' + l.textContent.trim());
      if (boxes.some(b => over(r, b.getBoundingClientRect()))) found.push('label lies on a box: ' + l.textContent.trim());
      if (labels.slice(i + 1).some(o => over(r, o.querySelector('rect').getBoundingClientRect()))) found.push('label lies on another: ' + l.textContent.trim());
      const s = svg.getBoundingClientRect();
      if (r.left < s.left || r.right > s.right) found.push('label is cut off: ' + l.textContent.trim());
    });
    svg.querySelectorAll('.box').forEach(g => g.querySelectorAll('text').forEach(t => {
      if (t.getBoundingClientRect().right > g.querySelector('rect').getBoundingClientRect().right) found.push('box is too narrow: ' + t.textContent);
    }));
  }
  return found;
})()`

//revive:enable:line-length-limit

// Readable reports each visible text of the page that a reader could not read.
func (tab *Tab) Readable() {
	tab.t.Helper()
	found, err := chromedp.Run(tab.Context, chromedp.Evaluate[[]string](inspect))
	if err != nil {
		tab.t.Fatal(err)
	}
	for _, f := range found {
		tab.t.Error(f)
	}
}

// Complaints reports each request that the page may not send, and what it wrote to the console, as an error.
func (tab *Tab) Complaints() {
	tab.t.Helper()
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, wrong := range tab.wrong {
		tab.t.Error(wrong)
	}
}

// Picture writes a picture of the page into the folder that SM_SCREENSHOTS names, if it is set.
func (tab *Tab) Picture(name string) {
	tab.t.Helper()
	folder := os.Getenv("SM_SCREENSHOTS")
	if folder == "" {
		return
	}
	png, err := chromedp.Run(tab.Context, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name), png, 0o644)
	}
	if err != nil {
		tab.t.Error(err)
	}
}

// Until waits until an expression is true in the page, and gives the time that it took.
func (tab *Tab) Until(what, expression string) time.Duration {
	tab.t.Helper()
	began := time.Now()
	for time.Since(began) < patience {
		so, err := chromedp.Run(tab.Context, chromedp.Evaluate[bool](expression))
		if err != nil {
			tab.t.Fatalf("%s: %v", what, err)
		}
		if so {
			return time.Since(began)
		}
		<-time.After(50 * time.Millisecond)
	}
	tab.Picture("failed.png")
	tab.t.Fatalf("%s: not seen within %s", what, patience)
	return 0
}

// patience is how long Until waits. A busy machine may need most of it.
const patience = 2 * time.Minute

// Text gives the text of the elements that a selector finds.
func (tab *Tab) Text(selector string) string {
	tab.t.Helper()
	text, err := chromedp.Run(tab.Context, chromedp.Evaluate[string](
		fmt.Sprintf("[...document.querySelectorAll(%q)].map(e => e.textContent).join('\\n')", selector)))
	if err != nil {
		tab.t.Fatal(err)
	}
	return text
}

// Key focuses an element, which a JavaScript expression gives, and presses a key on it.
func (tab *Tab) Key(element, key string) {
	tab.t.Helper()
	if _, err := chromedp.Run(tab.Context, chromedp.Evaluate[bool](`(`+element+`.focus(), true)`)); err != nil {
		tab.t.Fatalf("focusing %s: %v", element, err)
	}
	if err := chromedp.Do(tab.Context, chromedp.KeyEvent(key)); err != nil {
		tab.t.Fatalf("pressing a key on %s: %v", element, err)
	}
}
