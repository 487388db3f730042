//go:build e2e

package report

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"ambientlab/internal/chromiumtest"
)

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
  for (const svg of document.querySelectorAll('.topology svg')) {
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

// The page in a real browser: nothing is asked of the network, nothing goes wrong, everything can be read, on a phone
// and on a desktop, by day and by night. SM_SCREENSHOTS names a folder for pictures of what was seen.
func TestPageInChromium(t *testing.T) {
	allocator := chromiumtest.Allocator(t)
	for _, name := range []string{"off", "all-on", "strict", "wrong"} {
		file := filepath.Join(t.TempDir(), name+".html")
		out, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := WritePage(out, load(t, name)); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int64{390, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%s %d %s", name, width, scheme),
					func(t *testing.T) { look := browse{name, file, width, scheme}; look.at(t, allocator) })
			}
		}
	}
}

type browse struct {
	name, file string
	width      int64
	scheme     string
}

func (b browse) at(t *testing.T, allocator context.Context) {
	address := (&url.URL{Scheme: "file", Path: b.file}).String()
	tab := chromiumtest.NewTab(t, allocator, time.Minute, func(asked string) bool { return asked == address })
	tab.Open(address, b.width, b.scheme, false)
	tab.Picture(fmt.Sprintf("%s-%d-%s.png", b.name, b.width, b.scheme))
	found, err := chromedp.Run(tab.Context, chromedp.Evaluate[[]string](inspect))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
	tab.Complaints()
}
