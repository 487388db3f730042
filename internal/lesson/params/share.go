package params

import "strings"

// Millionths is the share of delayed requests that istiod sends to the proxies, in millionths. istiod truncates, it
// does not round (istio.io/istio, pilot/pkg/networking/core/route/route.go, translatePercentToFractionalPercent), so
// that 1.14 % becomes 11399 millionths.
func (f Fault) Millionths() uint32 { return uint32(f.Percent * 10000) }

// Share is the share of requests that the proxies delay, 0 to 1.
func (f Fault) Share() float64 { return float64(f.Millionths()) / 1e6 }

// Covers tells whether requests for a path are delayed. A prefix is compared as text, so that /headers covers
// /headers/x and /headers2 (the same file, translateRouteMatch).
func (f Fault) Covers(path string) bool {
	if f.Exact {
		return path == f.Path
	}
	return strings.HasPrefix(path, f.Path)
}

// LongerPath is a path under the prefix, which appb answers with 404 as a rule.
func (f Fault) LongerPath() string { return strings.TrimSuffix(f.Path, "/") + "/x" }
