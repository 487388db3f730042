package workshop

import (
	"context"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/traffic"
)

// served serves the page of an engine on a fake lab until the test has ended.
func served(t *testing.T, lab *fakeLab, feed *Feed, station int) (*Page, *Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	e, err := New(lab, feed, claims(), filepath.Join(t.TempDir(), "notes.json"), "mage")
	if err == nil {
		err = e.Open(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Go(station); err != nil {
		t.Fatal(err)
	}
	page, err := NewPage(ctx, e, feed)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 3)
	go func() { ended <- page.Serve(ctx) }()
	go func() { e.Run(ctx); ended <- nil }()
	go func() { feed.Run(ctx); ended <- nil }()
	t.Cleanup(func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return page, e
}

// answer sends a request as a browser would, without following redirects.
func answer(t *testing.T, method, address string, change func(*http.Request)) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// TestPageRefuses sends what another site could make a browser send, and what a program without the token sends.
func TestPageRefuses(t *testing.T) {
	page, e := served(t, &fakeLab{look: applications()}, NewFeed(nil), 2)
	address := page.Address()
	if !strings.HasPrefix(address, "http://127.0.0.1:") {
		t.Fatalf("the page is at %s", address)
	}
	base, _, _ := strings.Cut(address, "?")
	first, _ := answer(t, http.MethodGet, address, nil)
	cookies := first.Cookies()
	if first.StatusCode != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].HttpOnly ||
		cookies[0].SameSite != http.SameSiteStrictMode {
		t.Fatalf("%s, cookies %v", first.Status, cookies)
	}
	known := func(r *http.Request) { r.AddCookie(cookies[0]) }
	for name, c := range map[string]struct {
		method, path string
		change       func(*http.Request)
		want         int
	}{
		"with the cookie": {http.MethodGet, "", known, http.StatusOK},
		"without token":   {http.MethodGet, "", nil, http.StatusUnauthorized},
		"events without token": {
			http.MethodGet, "events", nil, http.StatusUnauthorized,
		},
		"with a wrong token": {http.MethodGet, "?token=x", nil, http.StatusUnauthorized},
		"with an empty token": {
			http.MethodGet, "?token=", nil, http.StatusUnauthorized,
		},
		"a foreign host": {
			http.MethodGet, "", func(r *http.Request) { known(r); r.Host = "example.com" }, http.StatusForbidden,
		},
		"a foreign host with the right port": {http.MethodGet, "", func(r *http.Request) {
			known(r)
			r.Host = "example.com:" + r.URL.Port()
		}, http.StatusForbidden},
		"cross-site": {http.MethodPost, "hint", func(r *http.Request) {
			known(r)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}, http.StatusForbidden},
		"another origin": {http.MethodPost, "hint", func(r *http.Request) {
			known(r)
			r.Header.Set("Origin", "http://example.com")
		}, http.StatusForbidden},
		"a token does not allow a change": {
			http.MethodPost, "hint?token=" + page.token, nil, http.StatusUnauthorized,
		},
		"an unknown action":      {http.MethodPost, "format", known, http.StatusNotFound},
		"a report before checks": {http.MethodGet, "report", known, http.StatusNotFound},
	} {
		if got, _ := answer(t, c.method, base+c.path, c.change); got.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", name, got.Status, c.want)
		}
	}
	if e.View().Notes.Hints != 0 {
		t.Error("a refused request took a hint")
	}
	if got, _ := answer(t, http.MethodPost, base+"hint", known); got.StatusCode != http.StatusSeeOther ||
		e.View().Notes.Hints != 1 {
		t.Errorf("the button: %s, %d hints", got.Status, e.View().Notes.Hints)
	}
}

// TestPageWithoutScript shows what a browser without a script gets.
func TestPageWithoutScript(t *testing.T) {
	lab := &fakeLab{look: applications(upTo("waypoint")...), holds: []string{"waypoint-appa"}}
	page, e := served(t, lab, NewFeed(nil), 2)
	for e.View().Report == nil {
		<-e.Changed()
	}
	base, _, _ := strings.Cut(page.Address(), "?")
	first, _ := answer(t, http.MethodGet, page.Address(), nil)
	known := func(r *http.Request) { r.AddCookie(first.Cookies()[0]) }
	for path, texts := range map[string][]string{
		"": {
			"✓ proven", "✗ refuted", "expected 200", "station 3 of 10", `aria-pressed="false"`, "the lab, live",
			`<svg class="tall"`,
		},
		"tab/yaml": {
			"create Gateway default/appb-waypoint", "# a comment", "<del>-old &lt;b&gt;</del>\n<ins>+new</ins>",
		},
		"tab/commands": {"kubectl apply -f - &lt;&lt;&#39;EOF&#39;"},
		"report":       {"expected 200", "claims"},
	} {
		response, body := answer(t, http.MethodGet, base+path, known)
		for _, text := range texts {
			if !strings.Contains(strings.ToLower(body), strings.ToLower(text)) {
				t.Errorf("/%s (%s) lacks %q:\n%s", path, response.Status, text, body)
			}
		}
	}
	script, err := os.ReadFile("page.js")
	if err != nil || len(script) > 10_000 {
		t.Errorf("page.js has %d bytes (%v)", len(script), err)
	}
	answer(t, http.MethodPost, base+"predict", func(r *http.Request) {
		known(r)
		r.Body = io.NopCloser(strings.NewReader(url.Values{"choice": {"b"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	})
	if e.View().Notes.Prediction != "b" {
		t.Error("the prediction was not taken")
	}
}

func TestDots(t *testing.T) {
	request := Request{Who: probe.Gateway, Method: "GET", Path: "/ip", Status: 200, Way: Through}
	through := dots(request)
	request.Way = Around
	around := dots(request)
	request.Way, request.Status = Through, 403
	refused := dots(request)
	if len(through) != 2 || len(around) != 2 || len(refused) != 2 {
		t.Fatalf("%d, %d and %d dots", len(through), len(around), len(refused))
	}
	path := func(all []Dot) string {
		for _, d := range all {
			if d.Map == "wide" {
				return d.Path
			}
		}
		return ""
	}
	if path(through) == path(around) || !strings.HasPrefix(path(through), path(refused)) ||
		path(through) == path(refused) {
		t.Errorf("through %s, around %s, refused %s", path(through), path(around), path(refused))
	}
	request.Way = Open
	if len(dots(request)) != 0 {
		t.Error("a request whose way is not known has a dot")
	}
}

func TestStripsAndBars(t *testing.T) {
	now := time.Unix(1e9, 0)
	var all []Request
	for i := range 30 {
		r := Request{
			Who: probe.Gateway, At: now.Add(-time.Duration(i) * time.Second), Status: 200, Way: Through,
			Latency: 5 * time.Millisecond,
		}
		if i%3 == 0 {
			r.Way, r.Latency, r.Delayed = Around, 2005*time.Millisecond, true
		}
		all = append(all, r)
	}
	all = append(all, Request{Who: probe.Gateway, At: now.Add(-time.Hour), Way: Through, Status: 200},
		Request{Who: probe.Gateway, At: now, Way: Through, Status: traffic.NoAnswer})
	got := strips(all, now)
	if len(got) != 2 || len(got[0].Cells) != 31 || len(got[1].Cells) != 0 ||
		got[0].Counts != "21 through the waypoint, 10 straight to the pod" {
		t.Errorf("%d cells, %d cells, %q", len(got[0].Cells), len(got[1].Cells), got[0].Counts)
	}
	counted := map[bool]int{}
	for _, b := range bars(all, params.DefaultFault(), now) {
		counted[b.Delayed] += b.Count
	}
	if counted[true] != 10 || counted[false] != 20 {
		t.Errorf("the histogram has %v", counted)
	}
}

func TestFlows(t *testing.T) {
	now := time.Unix(1e9, 0)
	var all []Request
	for i := range 30 {
		r := Request{
			Who: probe.Gateway, Method: "GET", Path: "/headers", At: now.Add(-time.Duration(i) * time.Second / 3),
			Status: 200, Way: Through, Seen: "spiffe://cluster.local/ns/default/sa/gateway-istio",
		}
		if i < 10 {
			r.Status, r.Way, r.Seen = traffic.NoAnswer, Around, ""
		}
		all = append(all, r)
	}
	all = append(all,
		Request{Who: probe.Appa, Method: "POST", Path: "/ip", At: now, Status: 403, Way: Through, Seen: "x"},
		Request{Who: probe.Gateway, Method: "GET", Path: "/headers", At: now.Add(-time.Minute), Status: 200})
	got := flows(all, now)
	want := []Flow{
		{Who: probe.Appa, Seen: "x", Method: "POST", Path: "/ip", Rate: 0.1, Through: 1, Answers: "1 × 403"},
		{
			Who: probe.Gateway, Seen: "spiffe://cluster.local/ns/default/sa/gateway-istio", Method: "GET",
			Path: "/headers", Rate: 3, Through: 20, Around: 10, Answers: "20 × 200, 10 × no answer",
		},
	}
	for i := range got {
		got[i].Rate = math.Round(10*got[i].Rate) / 10
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMarkdown(t *testing.T) {
	got := string(markdown("One `code` <b>\nline.\n\n```sh\nmage <x>\n```\n\nTwo"))
	want := "<p>One <code>code</code> &lt;b&gt; line.</p>" + copied +
		"<pre><code>mage &lt;x&gt;\n</code></pre></div><p>Two</p>"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestBothSurfacesShowErrors asks for what a station does not have: the terminal and the page say so.
func TestBothSurfacesShowErrors(t *testing.T) {
	page, e := served(t, &fakeLab{look: applications()}, NewFeed(nil), 0)
	base, _, _ := strings.Cut(page.Address(), "?")
	first, _ := answer(t, http.MethodGet, page.Address(), nil)
	known := func(r *http.Request) { r.AddCookie(first.Cookies()[0]) }
	terminal := &terminal{engine: e, feed: NewFeed(nil), size: func() (int, int) { return 80, 24 }}
	for action, want := range map[string]string{
		"undo": "has nothing to undo", "break": "run mage sm:lab first", "go": "there are stations 1 to 10",
		"predict": "is not an answer",
	} {
		answer(t, http.MethodPost, base+action, known)
		for changed := e.Changed(); !strings.Contains(e.View().Failed, want); changed = e.Changed() {
			<-changed
		}
		var rows []string
		for _, r := range terminal.rows(80, 24) {
			rows = append(rows, r.text)
		}
		_, shown := answer(t, http.MethodGet, base, known)
		for surface, text := range map[string]string{"terminal": strings.Join(rows, " "), "page": shown} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the %s does not say %q:\n%s", action, surface, want, text)
			}
		}
	}
}
