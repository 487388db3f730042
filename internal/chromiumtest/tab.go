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
