//go:build e2e

package lab

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"ambientlab/internal/chromiumtest"
	"ambientlab/internal/tmuxtest"
)

// TestWorkshopPage uses the workshop of a real lab in a terminal and in Chromium, as a learner who types YAML does: the
// station is done after kubectl, requests that go around the waypoint are drawn, what another site could send is
// refused, and after kill -9 the workshop is where it was. SM_SCREENSHOTS names a folder for pictures.
func TestWorkshopPage(t *testing.T) {
	b := newBench(t, "page-test", "SM_PACKETS=on", "SM_ADDONS=none")
	p := b.compiled()
	b.installOrSkip()
	b.do("apps", b.apps)

	// Wide enough for the address of the page in one line.
	terminal := tmuxtest.New(t, 160, 40)
	start := func() (address string) {
		terminal.Press("clear; mage sm:workshop", "Enter")
		terminal.Shows("q quit")
		terminal.Press("o")
		found := regexp.MustCompile(`http://127\.0\.0\.1:\d+/\?token=\w+`).FindString(terminal.Shows("/?token="))
		if found == "" {
			t.Fatalf("no address on the screen:\n%s", terminal.Screen())
		}
		return found
	}
	address := start()
	terminal.Shows("n next station")
	terminal.Press("n")
	terminal.Shows("A waypoint for appb")
	terminal.Press("p")
	terminal.Shows("b: those from appa only")
	terminal.Press("b")
	refuses(t, address)

	page := chromiumtest.NewTab(t, chromiumtest.Allocator(t), 15*time.Minute, func(asked string) bool {
		return strings.HasPrefix(asked, "http://127.0.0.1:")
	})
	const (
		proven   = `![...document.querySelectorAll('.claims li')].some(li => li.className != 'proven')`
		straight = `[...document.querySelectorAll('g.dot title')].some(t => ` +
			`t.textContent.includes('from gateway') && t.textContent.includes('straight to pod'))`
	)
	page.Open(address, 1280, "light", false)
	page.Until("the prediction of the terminal",
		`document.getElementById('choice-b').getAttribute('aria-pressed') == 'true'`)
	page.Until("requests straight to the pod", straight)

	// The commands of the page, typed in a shell.
	for range 2 {
		page.Key("document.querySelector('[role=tab][aria-selected=true]')", kb.ArrowRight)
	}
	page.Until("the commands", `!!document.querySelector('#panel-commands code')`)
	for _, c := range regexp.MustCompile(`(?s)<pre><code>(.*?)</code></pre>`).
		FindAllStringSubmatch(fetched(t, address, "tab/commands"), -1) {
		p.shell(html.UnescapeString(c[1]))
	}
	took := page.Until("the station is done", proven)
	t.Logf("done %s after the last command of kubectl, of which the check took %s", took.Round(10*time.Millisecond),
		page.Text(".took"))
	page.Until("the explanation", `document.body.innerText.includes('Your prediction was right')`)
	page.Until("the report", `!document.querySelector('iframe').hidden && `+
		`document.querySelector('iframe').contentDocument.body.innerText.includes('claims')`)
	page.Until("a bar of the latencies", `!!document.querySelector('.bars li')`)
	page.Until("requests through the waypoint, by their identity",
		`document.getElementById('traffic').textContent.includes('/sa/gateway-istio')`)
	page.Until("cells of requests through the waypoint, of both callers",
		`document.querySelectorAll('.strip').length == 2 && [...document.querySelectorAll('.strip')].every(`+
			`s => s.querySelector('.cell:not(.around)'))`)
	page.Until("no dot straight to the pod is left", `!(`+straight+`)`)

	p.shell("kubectl label service appb istio.io/ingress-use-waypoint-")
	t.Logf("a request around the waypoint is drawn %s after the label was removed",
		page.Until("a dot around the waypoint", straight).Round(10*time.Millisecond))
	page.Until("a claim that does not hold", `!!document.querySelector('.claims .refuted')`)
	page.Key("document.getElementById('tab-commands')", kb.ArrowLeft)
	page.Until("the difference to what is live", `[...document.querySelectorAll('#panel-yaml ins')].some(i => `+
		`i.textContent.includes('istio.io/ingress-use-waypoint: "true"'))`)

	shell, err := strconv.Atoi(strings.TrimSpace(terminal.Run("display-message", "-p", "-t", "w", "#{pane_pid}")))
	if err != nil {
		t.Fatal(err)
	}
	kill(t, named(t, descendants(t, shell), "mage", "sm:workshop"))
	page.Until("the lost connection", `!document.getElementById('lost').hidden`)
	// The workshop had no chance to leave the raw mode of its terminal, in which Enter ends no line of sh.
	terminal.Press("stty sane; echo re''covered", "C-j")
	terminal.Shows("recovered")
	p.shell("kubectl label service appb istio.io/ingress-use-waypoint=true")
	address = start()
	// The station was done before, so the workshop continues with the one after it, and knows the prediction still.
	terminal.Shows("Delay half of the requests")
	terminal.Press("l")
	terminal.Shows("its key goes to one", "A waypoint for appb")
	terminal.Press("3")
	terminal.Shows("A waypoint for appb", "Your prediction was right")
	for _, width := range []int64{390, 1280} {
		for _, scheme := range []string{"light", "dark"} {
			page.Open(address, width, scheme, width == 390)
			page.Until("the station, done", proven+` && !!document.querySelector('#next')`)
			page.Until("dots", `!!document.querySelector('.dots g.dot')`)
			page.Readable()
			page.Picture(fmt.Sprintf("lab-%d-%s.png", width, scheme))
		}
	}
	terminal.Press("C-c")
	terminal.Shows("mage sm:workshop continues there")
}

// refuses sends what another site could make a browser send, and what a program without the token sends.
func refuses(t *testing.T, address string) {
	t.Helper()
	base, token, _ := strings.Cut(address, "?")
	for name, c := range map[string]struct {
		method, path string
		change       func(*http.Request)
		want         int
	}{
		"without the token": {http.MethodGet, "", func(*http.Request) {}, http.StatusUnauthorized},
		"a foreign Host": {
			http.MethodGet, "?" + token, func(r *http.Request) { r.Host = "example.com" }, http.StatusForbidden,
		},
		"cross-site": {
			http.MethodPost, "break", func(r *http.Request) {
				r.Header.Set("Sec-Fetch-Site", "cross-site")
				r.AddCookie(cookie(t, address))
			}, http.StatusForbidden,
		},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.method, base+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		c.change(request)
		response, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", name, response.Status, c.want)
		}
	}
}

// cookie is what the page gives a browser that brings the token.
func cookie(t *testing.T, address string) *http.Cookie {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if len(response.Cookies()) != 1 {
		t.Fatalf("%s gives the cookies %v", address, response.Cookies())
	}
	return response.Cookies()[0]
}

// fetched gives a part of the page.
func fetched(t *testing.T, address, part string) string {
	t.Helper()
	base, _, _ := strings.Cut(address, "?")
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+part, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.AddCookie(cookie(t, address))
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", part, response.Status, err)
	}
	return string(body)
}

// named finds the first of some processes that runs a program, with a given argument unless that is empty.
func named(t *testing.T, among []int, program, argument string) int {
	t.Helper()
	for _, pid := range among {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.Split(string(raw), "\x00")
		if err == nil && words[0] == program && (argument == "" || slices.Contains(words, argument)) {
			return pid
		}
	}
	t.Fatalf("no process runs %s", program)
	return 0
}
