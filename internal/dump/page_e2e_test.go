//go:build e2e

package dump

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"ambientlab/internal/chromiumtest"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
)

// The page in a real browser: nothing is asked of the network, everything can be read, the search leaves what contains
// the text. SM_SCREENSHOTS names a folder for pictures.
func TestPageInChromium(t *testing.T) {
	began := time.Date(2026, 11, 26, 18, 0, 0, 0, time.UTC)
	failed := problem.New(problem.NotReady, errors.New("container httpbin: CrashLoopBackOff"),
		"Deployment default/appb: 0 of 1 available")
	step := func(id string, from, took time.Duration, outcome engine.Outcome, message string) record.Step {
		return record.Step{
			ID: id, Title: "Step " + id, Began: began.Add(from), Took: took, Outcome: outcome, Message: message,
			Changes: []engine.Change{{Object: "Deployment default/" + id, Action: engine.Create}},
		}
	}
	run := record.Run{
		Target: "apps", Typed: "go tool mage sm:apps", Took: 90 * time.Second, Began: began, Err: failed,
		Plans: []record.Plan{{
			Name: "apps", Title: "Applications", Began: began, Took: 90 * time.Second, Over: true, Failed: true,
			Steps: []record.Step{
				step("appa", 0, 20*time.Second, engine.Done, "1 of 1 available"),
				step("appb", 5*time.Second, 85*time.Second, engine.Failed, failed.Error()),
				{ID: "gateway", Title: "Gateway", Outcome: engine.Canceled, Message: "not started"},
			},
		}},
		Settings: []record.Setting{{Name: "SM_PROVIDER", Value: "kind", Given: true}, {Name: "SM_WORKERS", Value: "2"}},
	}
	c := Collect(t.Context(), run, []Part{{Name: "all", Collect: func(_ context.Context, add Add) error {
		add(MapName, []byte(`[{"name":"lab-control-plane","state":"ready","ready":true,"pods":[{"namespace":"default",`+
			`"name":"appb-689f7d9f85-2jggm","state":"Running","reason":"container httpbin: CrashLoopBackOff"},`+
			`{"namespace":"default","name":"appa-8547f98f66-p8tm4","state":"Running","ready":true}]}]`))
		add(EventsName, []byte(`[{"last":"2026-11-26T18:00:00Z","type":"Warning",`+
			`"object":"Pod default/appb-689f7d9f85-2jggm","reason":"BackOff",`+
			`"message":"Back-off restarting failed container httpbin","count":3},`+
			`{"last":"2026-11-26T18:00:01Z","type":"Normal","object":"ReplicaSet default/appa-8547f98f66",`+
			`"reason":"SuccessfulCreate","message":"Created pod: appa-8547f98f66-p8tm4","count":1}]`))
		add("status.txt", []byte("WHAT  STATE\nappb  not ready\n"))
		add("doctor.txt", []byte("CHECK  VERDICT\ndisk   ok\n"))
		add("pods/default/appb-1/httpbin.log", []byte("listening on 8080\npanic: no such file: unique-text\n"))
		return errors.New("istiod: no pod of istiod runs")
	}}}, secrets(), time.Second)
	file := filepath.Join(t.TempDir(), PageName)
	if err := os.WriteFile(file, []byte(unzip(t, write(t, c, Limit))[PageName]), 0o600); err != nil {
		t.Fatal(err)
	}
	address := (&url.URL{Scheme: "file", Path: file}).String()
	allocator := chromiumtest.Allocator(t)
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			t.Run(fmt.Sprintf("%d %s", width, scheme), func(t *testing.T) {
				isPage := func(asked string) bool { return asked == address }
				tab := chromiumtest.NewTab(t, allocator, time.Minute, isPage)
				tab.Open(address, width, scheme, false)
				tab.Picture(fmt.Sprintf("dump-%d-%s.png", width, scheme))
				tab.Readable()
				const search = `(() => { const find = document.getElementById("find"); find.value = "UNIQUE-text";
					find.dispatchEvent(new Event("input"));
					return [...document.querySelectorAll(".line, .log pre")].filter(e => e.checkVisibility())
						.map(e => e.textContent).join("|"); })()`
				left, err := chromedp.Run(tab.Context, chromedp.Evaluate[string](search))
				if err != nil || strings.TrimSpace(left) != "panic: no such file: unique-text" {
					t.Errorf("the search leaves %q, %v", left, err)
				}
				tab.Complaints()
			})
		}
	}
}
