package workshop

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/traffic"
)

// Map is the lab as boxes and lines, in coordinates of its own, for a wide window or a narrow one.
type Map struct {
	Class         string
	Width, Height int
	Mesh          Box
	Boxes         []Box
	Lines         []string
}

// Box is a named rectangle.
type Box struct {
	X, Y, W, H       int
	Name, Note, Kind string
}

// leg is a way of a caller's requests as two parts: to the waypoint and on to appb, or the first alone, straight to
// appb.
type leg struct{ first, second string }

// legs are the ways by the caller and by whether they go through the waypoint.
type legs map[probe.Caller]map[Way]leg

func wideLegs() legs {
	const on = " C740 150 770 165 802 206"
	return legs{
		probe.Gateway: {
			Through: {"M150 73 H390 C460 73 480 140 542 148 H682", on},
			Around:  {"M150 73 H390 C560 60 790 40 866 184", ""},
		},
		probe.Appa: {
			Through: {"M390 165 C450 165 480 152 542 152 H682", on},
			Around:  {"M390 185 C480 228 640 236 802 218", ""},
		},
		probe.Outsider: {
			Through: {"M390 273 C500 273 560 240 590 180", " C640 150 700 150 802 206"},
			Around:  {"M390 273 C560 290 700 270 802 226", ""},
		},
		probe.Unmeshed: {Around: {"M390 373 C620 373 760 330 858 240", ""}},
	}
}

func tallLegs() legs {
	return legs{
		probe.Gateway: {
			Through: {"M61 60 V135 H118 C178 138 186 196 238 205", " C298 246 298 300 298 374"},
			Around:  {"M61 60 V135 H118 C230 130 226 300 262 374", ""},
		},
		probe.Appa: {
			Through: {"M118 212 H238", " C298 246 298 300 298 374"},
			Around:  {"M118 232 C190 250 200 380 238 392", ""},
		},
		probe.Outsider: {
			Through: {"M118 304 C190 304 226 270 262 244", " C298 260 298 300 298 374"},
			Around:  {"M118 310 C170 320 190 390 238 400", ""},
		},
		probe.Unmeshed: {Around: {"M118 435 C170 435 190 416 238 408", ""}},
	}
}

// bothMaps gives the map in both shapes.
func bothMaps() []Map {
	return []Map{{
		Class: "wide", Width: 960, Height: 416, Mesh: Box{X: 226, Y: 18, W: 726, H: 302},
		Boxes: []Box{
			{10, 46, 140, 54, "you", "this computer", "outside"},
			{250, 46, 140, 54, "gateway", "gateway-istio", "proxy"},
			{250, 146, 140, 54, "appa", "account appa", "app"},
			{250, 246, 140, 54, "outsider", "in the mesh", "app"},
			{250, 346, 140, 54, "unmeshed", "no identity", "outside"},
			{538, 122, 152, 58, "waypoint", "appb-waypoint", "proxy"},
			{802, 184, 130, 56, "appb", "httpbin", "app"},
		},
		Lines: lines(wideLegs()),
	}, {
		Class: "tall", Width: 360, Height: 474, Mesh: Box{X: 1, Y: 97, W: 358, H: 340},
		Boxes: []Box{
			{4, 10, 114, 50, "you", "this computer", "outside"},
			{4, 110, 114, 50, "gateway", "gateway-istio", "proxy"},
			{4, 194, 114, 50, "appa", "account appa", "app"},
			{4, 278, 114, 50, "outsider", "in the mesh", "app"},
			{4, 410, 114, 50, "unmeshed", "no identity", "outside"},
			{238, 194, 118, 50, "waypoint", "appb-waypoint", "proxy"},
			{238, 374, 118, 50, "appb", "httpbin", "app"},
		},
		Lines: lines(tallLegs()),
	}}
}

func lines(all legs) []string {
	var paths []string
	for _, who := range []probe.Caller{probe.Gateway, probe.Appa, probe.Outsider, probe.Unmeshed} {
		for _, way := range []Way{Through, Around} {
			if l := all[who][way]; l.first != "" {
				paths = append(paths, l.first+l.second)
			}
		}
	}
	return paths
}

// Dot is a request that moves on the map.
type Dot struct {
	// ID is that of the request: a dot whose way is corrected takes the place of the one before.
	ID int
	// Map is the class of the map, Path the way, Outcome the colour and shape, Seconds how long it moves.
	Map, Path, Outcome string
	Seconds            string
	Title              string
}

// dots gives the dot of a request for each map; none where its way is not known.
func dots(r Request) []Dot {
	var all []Dot
	who := r.Who
	if who == probe.AppaDirect {
		who = probe.Appa
	}
	for class, ways := range map[string]legs{"wide": wideLegs(), "tall": tallLegs()} {
		l, known := ways[who][r.Way]
		if !known {
			continue
		}
		path := l.first + l.second
		if r.Status == 403 { // it got no further than the waypoint
			path = l.first
		}
		seconds := "0.9s"
		if r.Delayed {
			seconds = "2.4s"
		}
		all = append(all, Dot{
			r.id, class, path, r.Outcome(), seconds,
			fmt.Sprintf("%s %s from %s: %s, %s", r.Method, r.Path, r.Who, statusText(r), wayText(r)),
		})
	}
	return all
}

func statusText(r Request) string {
	if r.Status == traffic.NoAnswer {
		return "no answer"
	}
	return strconv.Itoa(r.Status)
}

// Strip shows the requests of one caller in the last minutes, one cell each, a column for each span of time.
type Strip struct {
	Who    probe.Caller
	Cells  []Cell
	Counts string
}

// Cell is one request in a strip.
type Cell struct {
	X, Y    int
	Outcome string
	Around  bool
}

// A strip has stripColumns columns of stripSpan each; a column shows at most stripRows requests.
const (
	stripColumns = 60
	stripSpan    = 3 * time.Second
	stripRows    = 9
	cellSize     = 10
)

func strips(requests []Request, now time.Time) []Strip {
	var all []Strip
	last := now.Truncate(stripSpan)
	for _, who := range []probe.Caller{probe.Gateway, probe.Appa} {
		s := Strip{Who: who}
		filled := map[int]int{}
		through, around := 0, 0
		for _, r := range requests {
			column := stripColumns - 1 - int(last.Sub(r.At.Truncate(stripSpan))/stripSpan)
			if r.Who != who || r.Way == Open || column < 0 || column >= stripColumns {
				continue
			}
			switch r.Way {
			case Through:
				through++
			case Around:
				around++
			}
			if row := filled[column]; row < stripRows {
				filled[column]++
				s.Cells = append(s.Cells, Cell{
					column * cellSize, (stripRows - 1 - row) * cellSize, r.Outcome(), r.Way == Around,
				})
			}
		}
		s.Counts = fmt.Sprintf("%d through the waypoint, %d straight to the pod", through, around)
		all = append(all, s)
	}
	return all
}

// Bar is a bar of the histogram of latencies.
type Bar struct {
	Label   string
	Count   int
	Percent float64
	Delayed bool
}

// histogramSpan is how old the requests of the histogram may be.
const histogramSpan = time.Minute

func bars(requests []Request, fault params.Fault, now time.Time) []Bar {
	var latencies []time.Duration
	for _, r := range requests {
		if r.Status != traffic.NoAnswer && now.Sub(r.At) < histogramSpan {
			latencies = append(latencies, r.Latency)
		}
	}
	bins := probe.Bins(latencies, fault.Delay)
	most := 1
	for _, b := range bins {
		most = max(most, b.Count)
	}
	var all []Bar
	for _, b := range bins {
		if b.Count > 0 {
			all = append(all, Bar{
				"from " + b.From.Round(time.Millisecond).String(), b.Count, 100 * float64(b.Count) / float64(most),
				b.From >= fault.Delay,
			})
		}
	}
	return all
}

// Flow is what one caller asks for, and how its requests travel.
type Flow struct {
	Who probe.Caller
	// Seen is the identity of the caller as the waypoint saw it last; empty where it saw none.
	Seen         string
	Method, Path string
	// Rate is the number of requests a second, Through and Around how many of them took which way.
	Rate            float64
	Through, Around int
	// Answers counts what became of the requests, such as "28 × 200, 2 × 403".
	Answers string
}

// flowSpan is how old the requests of a Flow may be.
const flowSpan = 10 * time.Second

// flows sums up the last requests by caller, method and path.
func flows(requests []Request, now time.Time) []Flow {
	type key struct {
		who          probe.Caller
		method, path string
	}
	found := map[key]*Flow{}
	answers := map[key]map[string]int{}
	for _, r := range requests {
		if now.Sub(r.At) >= flowSpan {
			continue
		}
		k := key{r.Who, r.Method, r.Path}
		f := found[k]
		if f == nil {
			f = &Flow{Who: r.Who, Method: r.Method, Path: r.Path}
			found[k], answers[k] = f, map[string]int{}
		}
		f.Rate += 1 / flowSpan.Seconds()
		switch r.Way {
		case Through:
			f.Through++
			f.Seen = r.Seen
		case Around:
			f.Around++
		}
		answers[k][statusText(r)]++
	}
	var all []Flow
	for k, f := range found {
		var parts []string
		for _, answer := range slices.Sorted(maps.Keys(answers[k])) {
			parts = append(parts, fmt.Sprintf("%d × %s", answers[k][answer], answer))
		}
		f.Answers = strings.Join(parts, ", ")
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Flow) int {
		return cmp.Or(cmp.Compare(a.Who, b.Who), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	return all
}
