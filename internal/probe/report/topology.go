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

// stretch is a way as data: which claims speak about it, the more telling first.
type stretch struct {
	name   string
	claims []string
	wide   route
	tall   route
}

type route struct {
	path string
	x, y int
}

func stretches() []stretch {
	return []stretch{
		{"from outside to the gateway", []string{"reach-gateway", "authz-taken-out-gateway"}, route{"M150 73 H246", 198, 73}, route{"M60 62 V108", 60, 84}},
		{"from the gateway to the waypoint", []string{"authz-taken-out-gateway", "fault-gateway", "authz-get-gateway", "waypoint-gateway"}, route{"M390 73 C455 73 480 125 542 131", 470, 96}, route{"M114 136 C175 138 180 190 232 201", 178, 160}},
		{"from appa to the waypoint", []string{"authz-taken-out-appa", "fault-appa", "authz-get-appa", "waypoint-appa"}, route{"M390 173 C450 173 480 153 542 150", 470, 161}, route{"M114 222 H232", 172, 222}},
		{"from another identity to the waypoint", []string{"authz-outsider", "authz-off-outsider"}, route{"M390 273 C470 273 480 180 542 170", 486, 216}, route{"M114 304 C190 300 180 246 232 238", 170, 282}},
		{"from appa straight to appb's pod", []string{"direct-closed", "direct-open", "waypoint-off"}, route{"M390 190 C520 225 640 225 802 218", 628, 219}, route{"M114 232 C205 262 160 380 232 392", 182, 348}},
		{"from outside the mesh to appb's pod", []string{"unmeshed-closed", "unmeshed-open"}, route{"M390 373 C620 373 740 330 850 242", 650, 345}, route{"M114 436 C170 436 180 418 232 412", 174, 430}},
		{"from the waypoint to appb", []string{"authz-get-appa", "authz-get-gateway", "fault-appa", "fault-gateway", "waypoint-appa", "waypoint-gateway"}, route{"M682 150 C740 150 770 165 802 190", 742, 156}, route{"M288 246 V372", 288, 306}},
	}
}

func drawings(r probe.Report) []drawing {
	wide := drawing{
		Class: "wide", Width: 960, Height: 420, Mesh: rectangle{226, 18, 726, 302},
		Boxes: []box{
			{rectangle{10, 46, 140, 54}, "you", "this computer", "outside"},
			{rectangle{250, 46, 140, 54}, "gateway", "sa gateway-istio", "proxy"},
			{rectangle{250, 146, 140, 54}, "appa", "sa appa", "app"},
			{rectangle{250, 246, 140, 54}, "outsider", "sa outsider", "app"},
			{rectangle{250, 346, 140, 54}, "unmeshed", "no identity", "outside"},
			{rectangle{542, 122, 140, 58}, "waypoint", waypointNote(r), "proxy"},
			{rectangle{802, 182, 130, 58}, "appb", "httpbin", "app"},
		},
	}
	tall := drawing{
		Class: "tall", Width: 350, Height: 474, Mesh: rectangle{1, 96, 348, 246},
		Boxes: []box{
			{rectangle{6, 10, 108, 50}, "you", "this computer", "outside"},
			{rectangle{6, 110, 108, 50}, "gateway", "gateway-istio", "proxy"},
			{rectangle{6, 196, 108, 50}, "appa", "sa appa", "app"},
			{rectangle{6, 280, 108, 50}, "outsider", "sa outsider", "app"},
			{rectangle{6, 410, 108, 50}, "unmeshed", "no identity", "outside"},
			{rectangle{232, 194, 112, 50}, "waypoint", waypointNote(r), "proxy"},
			{rectangle{232, 374, 112, 50}, "appb", "httpbin", "app"},
		},
	}
	tall.Mesh.H = 346
	for _, s := range stretches() {
		found := finding(r, s)
		wide.Ways = append(wide.Ways, found.along(s.wide))
		tall.Ways = append(tall.Ways, found.along(s.tall))
	}
	return []drawing{wide, tall}
}

func waypointNote(r probe.Report) string {
	if !r.Lessons.Waypoint {
		return "lesson off"
	}
	return "appb-waypoint"
}

func (w way) along(r route) way {
	w.Path, w.X, w.Y = r.path, r.x, r.y
	w.W = 44 + 8*len([]rune(w.Word))
	w.Half = w.W / 2
	return w
}

// finding is the worst that the claims about a stretch say; where they agree, the most telling one speaks.
func finding(r probe.Report, s stretch) way {
	var about []probe.Result
	for _, id := range s.claims {
		for _, c := range r.Claims {
			if c.ID == id {
				about = append(about, c)
			}
		}
	}
	if len(about) == 0 {
		return way{Verdict: "unasked", Symbol: "–", Word: "not asked", Title: s.name + ": no claim is made with these lessons"}
	}
	bad := map[probe.Verdict]int{probe.Proven: 0, probe.Inconclusive: 1, probe.Refuted: 2}
	worst := slices.MaxFunc(about, func(a, b probe.Result) int { return cmp.Compare(bad[a.Verdict], bad[b.Verdict]) })
	return way{Verdict: string(worst.Verdict), Symbol: symbol(worst.Verdict), Word: word(worst), Title: fmt.Sprintf("%s: %s: %s", s.name, worst.Title, worst.Verdict)}
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
		return "goes around"
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
		return "403 denied"
	case "200":
		if m.Who == probe.AppaDirect || m.Who == probe.Unmeshed {
			return "open, 200"
		}
	}
	return common
}

func symbol(v probe.Verdict) string {
	return map[probe.Verdict]string{probe.Proven: "✓", probe.Refuted: "✗", probe.Inconclusive: "?"}[v]
}
