package report

import (
	"cmp"
	"fmt"
	"slices"

	"ambientlab/internal/probe"
)

// drawing is the lab as boxes and ways between them, in coordinates of its own.
type drawing struct {
	Class         string // wide or tall: shown on a desktop or on a phone
	Width, Height int
	Mesh          rectangle
	Boxes         []box
	Ways          []way
}

type rectangle struct{ X, Y, W, H int }

type box struct {
	rectangle
	Name, Note string
	Kind       string
}

// way is a line between two boxes with what was found about it.
type way struct {
	Path    string
	X, Y, W int // of its label
	Half    int
	Verdict string
	Symbol  string
	Word    string
	Title   string
}

// segment is a way as data: which claims are about it, the more specific first.
type segment struct {
	name   string
	claims []string
	// crossed says that only claims count whose requests went through the waypoint.
	crossed bool
	wide    route
	tall    route
}

type route struct {
	path string
	x, y int
}

func segments() []segment {
	return []segment{
		{
			"from outside to the gateway",
			[]string{"reach-gateway", "authz-taken-out-gateway"},
			false,
			route{"M150 73 H246", 198, 73},
			route{"M61 62 V106", 61, 83},
		},
		{
			"from the gateway to the waypoint",
			[]string{"authz-taken-out-gateway", "fault-gateway", "authz-get-gateway", "waypoint-gateway"},
			false,
			route{"M390 73 C460 73 480 127 538 133", 470, 98},
			route{"M118 136 C178 138 186 196 234 204", 180, 160},
		},
		{
			"from appa to the waypoint",
			[]string{"authz-taken-out-appa", "fault-appa", "authz-get-appa", "waypoint-appa"},
			false,
			route{"M390 167 C450 167 480 155 538 153", 464, 162},
			route{"M118 218 H234", 178, 217},
		},
		{
			"from another identity to the waypoint",
			[]string{"authz-outsider", "authz-off-outsider"},
			false,
			route{"M390 273 C520 273 598 260 608 185", 500, 270},
			route{"M118 304 C210 304 256 300 266 250", 180, 300},
		},
		{
			"from appa straight to appb's pod",
			[]string{"direct-closed", "direct-open", "waypoint-off"},
			false,
			route{"M390 187 C480 225 640 232 798 218", 704, 227},
			route{"M118 234 C190 256 140 378 234 390", 160, 346},
		},
		{
			"from outside the mesh to appb's pod",
			[]string{"unmeshed-closed", "unmeshed-open"},
			false,
			route{"M390 373 C620 373 760 330 858 244", 660, 348},
			route{"M118 435 C170 435 190 416 234 410", 174, 430},
		},
		{
			"from the waypoint to appb",
			[]string{
				"authz-get-appa", "authz-get-gateway", "fault-appa", "fault-gateway", "waypoint-appa",
				"waypoint-gateway",
			},
			true,
			route{"M682 150 C740 150 770 165 802 186", 744, 158},
			route{"M298 246 V370", 298, 322},
		},
	}
}

func drawings(r probe.Report) []drawing {
	wide := drawing{
		Class: "wide", Width: 960, Height: 416, Mesh: rectangle{226, 18, 726, 302},
		Boxes: []box{
			{rectangle{10, 46, 140, 54}, "you", "this computer", "outside"},
			{rectangle{250, 46, 140, 54}, "gateway", "sa gateway-istio", "proxy"},
			{rectangle{250, 146, 140, 54}, "appa", "sa appa", "app"},
			{rectangle{250, 246, 140, 54}, "outsider", "sa outsider", "app"},
			{rectangle{250, 346, 140, 54}, "unmeshed", "no identity", "outside"},
			{rectangle{542, 122, 140, 58}, "waypoint", waypointNote(r), "proxy"},
			{rectangle{802, 184, 130, 56}, "appb", "httpbin", "app"},
		},
	}
	tall := drawing{
		Class: "tall", Width: 360, Height: 474, Mesh: rectangle{1, 97, 358, 302},
		Boxes: []box{
			{rectangle{4, 10, 114, 50}, "you", "this computer", "outside"},
			{rectangle{4, 110, 114, 50}, "gateway", "gateway-istio", "proxy"},
			{rectangle{4, 194, 114, 50}, "appa", "sa appa", "app"},
			{rectangle{4, 278, 114, 50}, "outsider", "sa outsider", "app"},
			{rectangle{4, 410, 114, 50}, "unmeshed", "no identity", "outside"},
			{rectangle{238, 194, 118, 50}, "waypoint", waypointNote(r), "proxy"},
			{rectangle{238, 374, 118, 50}, "appb", "httpbin", "app"},
		},
	}
	tall.Mesh.H = 340
	for _, s := range segments() {
		found := finding(r, s)
		wide.Ways = append(wide.Ways, found.along(s.wide))
		tall.Ways = append(tall.Ways, found.along(s.tall))
	}
	return []drawing{wide, tall}
}

func waypointNote(r probe.Report) string {
	if !r.Lessons.On("waypoint") {
		return "lesson off"
	}
	return "appb-waypoint"
}

func (w way) along(r route) way {
	w.Path, w.X, w.Y = r.path, r.x, r.y
	w.W = 38 + 9*len([]rune(w.Word))
	w.Half = w.W / 2
	return w
}

// finding is the worst verdict of the claims about a segment; of equal verdicts, that of the most specific claim.
func finding(r probe.Report, s segment) way {
	var about []probe.Result
	for _, id := range s.claims {
		for _, c := range r.Claims {
			if c.ID == id && (!s.crossed || crossedAny(c)) {
				about = append(about, c)
			}
		}
	}
	if len(about) == 0 {
		return way{
			Verdict: "unasked", Symbol: "–", Word: "none",
			Title: s.name + ": no claim is made with these lessons",
		}
	}
	bad := map[probe.Verdict]int{probe.Proven: 0, probe.Inconclusive: 1, probe.Refuted: 2}
	worst := slices.MaxFunc(about, func(a, b probe.Result) int { return cmp.Compare(bad[a.Verdict], bad[b.Verdict]) })
	return way{
		Verdict: string(worst.Verdict), Symbol: symbol(worst.Verdict), Word: word(worst),
		Title: fmt.Sprintf("%s: %s: %s", s.name, worst.Title, worst.Verdict),
	}
}

func crossedAny(c probe.Result) bool {
	for _, m := range c.Measured {
		if m.Crossed != nil && *m.Crossed > 0 {
			return true
		}
	}
	return false
}

// word says what was found on a way, in one or two words.
func word(c probe.Result) string {
	if len(c.Measured) == 0 {
		return string(c.Verdict)
	}
	m := c.Measured[len(c.Measured)-1]
	switch {
	case c.Verdict == probe.Inconclusive:
		return "unsure"
	case m.Share != nil:
		return fmt.Sprintf("%.0f %% slow", 100*float64(m.Share.Delayed)/float64(max(m.Share.Of, 1)))
	case m.Crossed != nil && *m.Crossed == 0 && c.Verdict == probe.Refuted:
		return "around"
	}
	common, most := "", 0
	for _, s := range statusesOf(m) {
		if s.Count > most {
			common, most = s.Name, s.Count
		}
	}
	switch common {
	case "no answer":
		return "reset"
	case "403":
		return "403"
	case "200":
		if m.Who == probe.AppaDirect || m.Who == probe.Unmeshed {
			return "open"
		}
	}
	return common
}

func symbol(v probe.Verdict) string {
	return map[probe.Verdict]string{probe.Proven: "✓", probe.Refuted: "✗", probe.Inconclusive: "?"}[v]
}
