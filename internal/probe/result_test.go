package probe

import (
	"fmt"
	"testing"
)

func TestWhy(t *testing.T) {
	failed := func(id string, causes ...string) Result {
		return Result{ID: id, Verdict: Refuted, Causes: causes, Checks: []Check{
			{Verdict: Proven, Text: "it was fast"}, {Verdict: Refuted, Text: "200, want 403"},
		}}
	}
	many := Report{}
	for i := range whyLimit + 2 {
		many.Claims = append(many.Claims, failed("c", fmt.Sprintf("cause %d", i)))
	}
	for _, c := range []struct {
		report Report
		want   string
	}{
		{Report{Claims: []Result{{Verdict: Proven, Causes: []string{"none"}}}}, "<nil>"},
		{
			Report{Claims: []Result{failed("a", "no ztunnel"), failed("b", "no ztunnel", "no waypoint"), failed("c")}},
			"likely no ztunnel; likely no waypoint; c: 200, want 403",
		},
		{many, "likely cause 0; likely cause 1; likely cause 2; likely cause 3; likely cause 4; and 2 more"},
	} {
		if got := fmt.Sprint(c.report.Why()); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}
