package report

import (
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/probe"
	"ambientlab/internal/probe/stats"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

// view is a report as the page's template needs it.
type view struct {
	probe.Report
	CSS      template.CSS
	Title    string
	Outcome  string // proven, refuted or inconclusive
	Tally    []tallied
	When     string
	Lasted   string
	Chips    []chip
	Drawings []drawing
	Cards    []card
}

type tallied struct {
	Verdict probe.Verdict
	Symbol  string
	Count   int
}

type chip struct {
	On         bool
	Name, Text string
}

type card struct {
	probe.Result
	Symbol   string
	Headline string
	Open     bool
	Lasted   string
	Batches  []batch
}

type batch struct {
	probe.Measurement
	Role     string
	Statuses []status
	Bars     []bar
	DelayAt  string
	Interval *interval
	Timeline *timeline
	SeenAs   []string
}

type status struct {
	Name    string
	Count   int
	Percent float64
	Class   string
}

type bar struct {
	Label   string
	Count   int
	Percent float64
	Delayed bool
	Gap     bool
}

// interval is the measured share on a scale of 0 to 100.
type interval struct{ Low, Width, Seen, Want float64 }

// timeline is a chart of latency over time; its coordinates are 0 to 1000 and 0 to 100.
type timeline struct {
	Fast, Slow, Failed string
	Line               float64
	Set, Duration      string
	Text               string
}

// WritePage writes the report as one HTML page that needs nothing from anywhere.
func WritePage(w io.Writer, r probe.Report) error {
	page, err := template.New("page").Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("reading the page's template: %w", err)
	}
	return page.Execute(w, look(r))
}

func look(r probe.Report) view {
	v := view{
		Report: r, CSS: template.CSS(pageCSS), //nolint:gosec // our own file
		When: r.Started.UTC().Format("2 January 2006, 15:04 UTC"), Lasted: r.Took.Round(time.Second).String(),
		Chips: chips(r.Lessons), Drawings: drawings(r),
	}
	switch {
	case r.Proven():
		v.Outcome, v.Title = "proven", fmt.Sprintf("All %d claims are proven", len(r.Claims))
	case r.Count(probe.Refuted) > 0:
		v.Outcome, v.Title = "refuted",
			fmt.Sprintf("%d of %d claims are refuted", r.Count(probe.Refuted), len(r.Claims))
	case len(r.Claims) == 0:
		v.Outcome, v.Title = "inconclusive", "Nothing was measured"
	default:
		v.Outcome, v.Title = "inconclusive",
			fmt.Sprintf("%d of %d claims are proven, none is refuted", r.Count(probe.Proven), len(r.Claims))
	}
	for _, verdict := range []probe.Verdict{probe.Proven, probe.Refuted, probe.Inconclusive} {
		v.Tally = append(v.Tally, tallied{verdict, symbol(verdict), r.Count(verdict)})
	}
	for _, c := range r.Claims {
		v.Cards = append(v.Cards, cardOf(c))
	}
	return v
}

func chips(l probe.Lessons) []chip {
	var all []chip
	for _, lesson := range l {
		text := "off"
		if lesson.On {
			text = lesson.Text
		}
		all = append(all, chip{lesson.On, lesson.Name, text})
	}
	return all
}

func cardOf(c probe.Result) card {
	v := card{
		Result: c, Symbol: symbol(c.Verdict), Headline: headline(c), Open: c.Verdict != probe.Proven,
		Lasted: c.Took.Round(100 * time.Millisecond).String(),
	}
	for _, m := range c.Measured {
		b := batch{Measurement: m, Role: "measurement", Statuses: statusesOf(m)}
		if m.Control {
			b.Role = "control"
		}
		for who, n := range m.Seen {
			if who == "" {
				who = "an unknown caller"
			}
			b.SeenAs = append(b.SeenAs, fmt.Sprintf("%d × %s", n, who))
		}
		slices.Sort(b.SeenAs)
		if m.Share != nil {
			v.Open = true
			s := m.Share
			b.Bars, b.DelayAt = bars(m, s.Delay), s.Delay.String()
			b.Interval = &interval{
				Low: 100 * s.Low, Width: 100 * (s.High - s.Low),
				Seen: 100 * float64(s.Delayed) / float64(max(s.Of, 1)), Want: 100 * s.Want,
			}
			b.Timeline = timelineOf(m, s.Delay)
		}
		v.Batches = append(v.Batches, b)
	}
	return v
}

func statusesOf(m probe.Measurement) []status {
	var all []status
	for name, n := range m.Statuses {
		s := status{Name: name, Count: n, Percent: 100 * float64(n) / float64(max(m.Sent, 1)), Class: "other"}
		switch code, _ := strconv.Atoi(name); {
		case code < 0:
			s.Name, s.Class = "no answer", "none"
		case code < 300:
			s.Class = "good"
		case code < 500:
			s.Class = "refused"
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func bars(m probe.Measurement, delay time.Duration) []bar {
	latencies := make([]time.Duration, len(m.Replies))
	for i, r := range m.Replies {
		latencies[i] = r.Latency
	}
	bins := probe.Bins(latencies, delay)
	most := 1
	for _, b := range bins {
		most = max(most, b.Count)
	}
	var out []bar
	for i, b := range bins {
		switch {
		case b.Count > 0:
			label := fmt.Sprintf("%s to %s", compact(b.From), compact(b.To))
			if i == len(bins)-1 {
				label = "over " + compact(b.From)
			}
			out = append(out, bar{
				Label: label, Count: b.Count, Percent: 100 * float64(b.Count) / float64(most),
				Delayed: b.From >= delay,
			})
		case len(out) > 0 && !out[len(out)-1].Gap:
			out = append(out, bar{Gap: true})
		}
	}
	if len(out) > 0 && out[len(out)-1].Gap {
		out = out[:len(out)-1]
	}
	return out
}

func compact(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return strconv.FormatFloat(d.Seconds(), 'g', 4, 64) + " s"
}

func timelineOf(m probe.Measurement, delay time.Duration) *timeline {
	if len(m.Replies) == 0 {
		return nil
	}
	first, last := m.Replies[0].At, m.Replies[0].At
	top := delay + delay/4
	for _, r := range m.Replies {
		if r.At.Before(first) {
			first = r.At
		}
		if r.At.After(last) {
			last = r.At
		}
		top = max(top, r.Latency)
	}
	span := max(last.Sub(first), time.Millisecond)
	t := &timeline{
		Line: 100 - 100*float64(delay)/float64(top), Set: delay.String(),
		Duration: compact(span.Round(100 * time.Millisecond)),
	}
	var fast, slow, failed strings.Builder
	for _, r := range m.Replies {
		x, y := 1000*float64(r.At.Sub(first))/float64(span), 100-100*float64(r.Latency)/float64(top)
		into := &fast
		switch {
		case r.Status < 0:
			into = &failed
		case r.Latency >= delay-stats.Early(delay):
			into = &slow
		}
		fmt.Fprintf(into, "M%.1f %.1fh0", x, y)
	}
	t.Fast, t.Slow, t.Failed = fast.String(), slow.String(), failed.String()
	t.Text = fmt.Sprintf("Latency of %d requests over %s: a band near zero and a band at %s", len(m.Replies),
		t.Duration, delay)
	return t
}
