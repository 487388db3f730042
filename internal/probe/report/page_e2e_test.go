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

	"ambientlab/internal/chromiumtest"
)

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
	tab.Readable()
	tab.Complaints()
}
