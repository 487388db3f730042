package workshop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed" // the page
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/probe/report"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS []byte

//go:embed page.js
var pageJS []byte

// Page is the surface for a browser. It listens on loopback, answers only requests whose Host is its own, refuses those
// that another site causes, and wants the token of its address.
type Page struct {
	engine   *Engine
	feed     *Feed
	listener net.Listener
	token    string
	page     *template.Template
	// ctx is that of the commands which the page starts: they outlive a request.
	ctx context.Context
}

// NewPage makes the page of a workshop and listens on a free port of 127.0.0.1. ctx is that of the commands that the
// page starts.
func NewPage(ctx context.Context, engine *Engine, feed *Feed) (*Page, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the workshop's page: %w", err)
	}
	page, err := template.New("page").Funcs(template.FuncMap{
		"markdown": markdown, "flat": flat,
		"copied":     func() template.HTML { return copied },
		"difference": func(text string) template.HTML { return template.HTML(difference(text)) }, //nolint:gosec // safe
		"inline":     func(text string) template.HTML { return template.HTML(inline(text)) },     //nolint:gosec // safe
		"letter":     choiceOf, "counted": counted, "lasted": lasted,
		"took": func(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) },
	}).Parse(pageHTML)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading the page's template: %w", err), listener.Close())
	}
	return &Page{engine: engine, feed: feed, listener: listener, token: rand.Text(), page: page, ctx: ctx}, nil
}

// Address is where the page is, with its token.
func (p *Page) Address() string { return "http://" + p.listener.Addr().String() + "/?token=" + p.token }

// Serve serves the page until ctx ends.
func (p *Page) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: p.handler(), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the workshop's page: %w", err)
	}
	return nil
}

func (p *Page) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.whole)
	mux.HandleFunc("GET /page.css", static("text/css; charset=utf-8", pageCSS))
	mux.HandleFunc("GET /page.js", static("text/javascript; charset=utf-8", pageJS))
	mux.HandleFunc("GET /events", p.events)
	mux.HandleFunc("GET /report", p.report)
	mux.HandleFunc("GET /tab/{tab}", p.tab)
	mux.HandleFunc("POST /{action}", p.act)
	return p.guarded(http.NewCrossOriginProtection().Handler(mux))
}

// policy lets the page load from itself alone.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; frame-src 'self'; " +
	"img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guarded refuses requests with a foreign Host, which is how a page of another site reaches a server on loopback (DNS
// rebinding), and those without the token. The first request brings the token in the address; a cookie keeps it then.
func (p *Page) guarded(next http.Handler) http.Handler {
	address := p.listener.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	cookie := "workshop-" + port
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Content-Security-Policy", policy)
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("Cache-Control", "no-store")
		if r.Host != address && r.Host != "localhost:"+port {
			http.Error(w, "this page answers for "+address+" only", http.StatusForbidden)
			return
		}
		if given := r.URL.Query().Get("token"); r.Method == http.MethodGet && p.isToken(given) {
			http.SetCookie(w, &http.Cookie{
				Name: cookie, Value: p.token, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
			})
			http.Redirect(w, r, "/", http.StatusSeeOther)
			return
		}
		if kept, err := r.Cookie(cookie); err != nil || !p.isToken(kept.Value) {
			http.Error(w, "open the address that mage sm:workshop printed: it holds a token", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *Page) isToken(given string) bool {
	return subtle.ConstantTimeCompare([]byte(given), []byte(p.token)) == 1
}

func static(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(content)
	}
}

// station is what the template of the station needs.
type station struct {
	View
	// Position counts the stations from 1.
	Position int
	List     []Listed
}

// charts are what the templates of the charts and of the traffic need.
type charts struct {
	// Live tells whether requests are shown: the applications run, and packets flow.
	Live  bool
	Strip []Strip
	Bars  []Bar
	Flows []Flow
}

func (p *Page) station() station {
	v := p.engine.View()
	return station{v, v.Index + 1, p.engine.List()}
}

func (p *Page) charts() charts {
	requests, now, look := p.feed.Last(kept), time.Now(), p.engine.View().Look
	return charts{
		look.NoPackets == "" && look.Lessons.On("apps"), strips(requests, now),
		bars(requests, look.Lessons.FaultOrDefault(), now), flows(requests, now),
	}
}

func (p *Page) render(name string, data any) ([]byte, error) {
	var out bytes.Buffer
	err := p.page.ExecuteTemplate(&out, name, data)
	return out.Bytes(), err
}

func (p *Page) write(w http.ResponseWriter, name string, data any) {
	content, err := p.render(name, data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(content)
}

func (p *Page) whole(w http.ResponseWriter, _ *http.Request) {
	p.write(w, "page", struct {
		station
		charts
		Maps []Map
	}{p.station(), p.charts(), bothMaps()})
}

// report serves the report of the last check, the same page as sm:verify writes.
func (p *Page) report(w http.ResponseWriter, _ *http.Request) {
	v := p.engine.View()
	if v.Report == nil {
		http.Error(w, "nothing has been measured yet", http.StatusNotFound)
		return
	}
	// The report brings a policy of its own, which allows its inline style; the page shows it in a frame.
	w.Header().Set("Content-Security-Policy", "frame-ancestors 'self'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = report.WritePage(w, *v.Report)
}

func (p *Page) tab(w http.ResponseWriter, r *http.Request) {
	tab := r.PathValue("tab")
	if tab != "yaml" && tab != "commands" {
		http.NotFound(w, r)
		return
	}
	manual, err := p.engine.Manual(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	p.write(w, tab, manual)
}

// act does what a button says. The page's script stays where it is; without a script the browser shows the page again.
func (p *Page) act(w http.ResponseWriter, r *http.Request) {
	run := func(command func(context.Context) error) {
		go func() { _ = command(p.ctx) }()
	}
	// What goes wrong is part of the view.
	switch r.PathValue("action") {
	case "predict":
		_ = p.engine.Predict(r.PostFormValue("choice"))
	case "check":
		_ = p.engine.Check()
	case "hint":
		_ = p.engine.Hint()
	case "next":
		_ = p.engine.Next()
	case "go":
		to, err := strconv.Atoi(r.PostFormValue("to"))
		if err != nil {
			to = -1
		}
		_ = p.engine.Go(to)
	case "do":
		run(p.engine.Do)
	case "undo":
		run(p.engine.Undo)
	case "break":
		run(func(ctx context.Context) error { return p.engine.Break(ctx, 0) })
	default:
		http.NotFound(w, r)
		return
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// events streams what changes: the station when it does, a dot for each request, the charts every second.
func (p *Page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	send := func(event string, data []byte) error {
		var b bytes.Buffer
		fmt.Fprintf(&b, "event: %s\n", event)
		for line := range bytes.Lines(bytes.TrimSpace(data)) {
			fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\n"))
		}
		b.WriteString("\n")
		if _, err := w.Write(b.Bytes()); err != nil {
			return err
		}
		return control.Flush()
	}
	requests, stop := p.feed.Listen()
	defer stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	last := map[string]string{}
	data := map[string]func() any{
		"station": func() any { return p.station() },
		"charts":  func() any { return p.charts() },
		"traffic": func() any { return p.charts() },
	}
	parts := []string{"station", "charts", "traffic"}
	changed := p.engine.Changed()
	for {
		for _, part := range parts {
			content, err := p.render(part, data[part]())
			if err != nil || last[part] == string(content) {
				continue
			}
			last[part] = string(content)
			if send(part, content) != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
			changed = p.engine.Changed() // before the view is read, so that no later change is missed
			parts = []string{"station"}
		case <-tick.C:
			parts = []string{"charts", "traffic"}
		case request := <-requests:
			parts = nil
			content, err := p.render("dots", dots(request))
			if err == nil && send("dots", content) != nil {
				return
			}
		}
	}
}

// copied begins a text with a button that copies it.
const copied = `<div class="command"><button type="button" data-copy>Copy</button>`

// markdown renders the little Markdown that the stations use: paragraphs, lists, code and blocks of commands.
func markdown(text string) template.HTML {
	var b strings.Builder
	paragraph, inside := "", false
	closeParagraph := func() {
		if paragraph != "" {
			b.WriteString("<p>" + inline(paragraph) + "</p>")
		}
		paragraph = ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			closeParagraph()
			b.WriteString(map[bool]string{false: copied + "<pre><code>", true: "</code></pre></div>"}[inside])
			inside = !inside
		case inside:
			b.WriteString(template.HTMLEscapeString(line) + "\n")
		case line == "":
			closeParagraph()
		default:
			paragraph = strings.TrimSpace(paragraph + " " + line)
		}
	}
	closeParagraph()
	return template.HTML(b.String()) //nolint:gosec // every part is escaped above
}

// inline renders code in a line.
func inline(text string) string {
	parts := strings.Split(template.HTMLEscapeString(text), "`")
	var b strings.Builder
	for i, part := range parts {
		if i%2 == 1 && i < len(parts)-1 {
			part = "<code>" + part + "</code>"
		}
		b.WriteString(part)
	}
	return b.String()
}

// difference renders a unified diff, with the lines that are added and removed marked.
func difference(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		escaped := template.HTMLEscapeString(strings.TrimRight(line, "\n"))
		switch line[0] {
		case '+':
			escaped = "<ins>" + escaped + "</ins>"
		case '-':
			escaped = "<del>" + escaped + "</del>"
		}
		b.WriteString(escaped + "\n")
	}
	return b.String()
}
