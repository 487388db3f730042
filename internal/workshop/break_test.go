package workshop

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
)

// TestBreak puts a fault in, takes hints, and fixes it as kubectl would: it is fixed when the claims are proven again.
func TestBreak(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notes.json")
	number := 1 + slices.IndexFunc(sabotage.All(), func(s sabotage.Sabotage) bool { return s.Name == "ingress-label" })
	all := []string{"waypoint-gateway", "fault-gateway", "authz-post-gateway"}
	title := "no label istio.io/ingress-use-waypoint"
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications(upTo("authz")...), holds: all, takes: time.Second}
		lab.breaks = 5 * time.Second
		e := opened(t, lab, file)
		at := e.View().Index
		stop := running(t.Context(), e)
		if err := e.Break(t.Context(), number); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		if v := e.View(); v.Done || !v.Broken || v.Station.Name != "break" || len(v.Items) != 3 {
			t.Errorf("before the proxies have it: done %t, %d claims", v.Done, len(v.Items))
		}
		time.Sleep(7 * time.Second)
		v := e.View()
		if v.Report == nil || v.Report.Proven() || len(v.Report.Claims[0].Causes) > 0 {
			t.Errorf("the symptom: %+v", v.Report)
		}
		if strings.Contains(v.Title+v.Goal+v.Explanation, "ingress") {
			t.Errorf("the name is told: %s %s", v.Title, v.Explanation)
		}
		if err := e.Break(t.Context(), 0); err == nil {
			t.Error("a second fault was put in")
		}
		mustDo(t, e.Hint())
		if v := e.View(); len(v.Hints) != 1 {
			t.Errorf("one hint was asked for, and there are %q", v.Hints)
		}
		mustDo(t, e.Hint())
		mustDo(t, e.Hint())
		time.Sleep(5 * time.Second)
		want := []string{
			"The target that would repair it is sm:waypoint.",
			"Look at what this shows: `kubectl -n default get services -o yaml`", "the label is missing",
		}
		if v := e.View(); !slices.Equal(v.Hints, want) {
			t.Errorf("the hints are %q", v.Hints)
		}
		// Killed and started again, the search goes on.
		again := opened(t, lab, file)
		if v := again.View(); !v.Broken || len(v.Hints) != 3 {
			t.Errorf("after a restart: %+v", v.Notes)
		}
		lab.change("Service appb", func() { lab.holds = all })
		for !e.View().Done {
			<-e.Changed()
		}
		if v := e.View(); !strings.Contains(v.Explanation, title) ||
			!strings.Contains(doneLine(v), "with 3 hints") || v.Fixed != 1 {
			t.Errorf("%s %s", doneLine(v), v.Explanation)
		}
		mustDo(t, e.Next())
		if v := e.View(); v.Broken || v.Index != at {
			t.Errorf("then at %d, broken %t", v.Index, v.Broken)
		}
		// Given up: then the learner is told what it was.
		if err := e.Break(t.Context(), number); err != nil {
			t.Fatal(err)
		}
		if err := e.Undo(t.Context()); err != nil || e.View().Broken ||
			!slices.Equal(lab.typed, []string{"mage sm:waypoint"}) || !strings.Contains(e.View().Told, title) {
			t.Errorf("%v, typed %q, told %q", err, lab.typed, e.View().Told)
		}
		// One that cannot be put in is taken out again, as far as it was.
		lab.fails("break")
		if err := e.Break(t.Context(), number); err == nil || e.View().Broken || len(lab.typed) != 2 ||
			!strings.Contains(e.View().Failed, "the object is missing") {
			t.Errorf("%v, typed %q, shown %q", err, lab.typed, e.View().Failed)
		}
		lab.fails("")
		// The next one that is chosen is another one.
		for range 20 {
			mustDo(t, e.Break(t.Context(), 0))
			if e.progress.Break.Number == number {
				t.Error("the fault that was fixed is chosen again")
			}
			mustDo(t, e.Restore(t.Context()))
		}
		if err := e.Restore(t.Context()); err == nil {
			t.Error("a lab without a fault was restored")
		}
		stop()
	})
}

// TestCandidates refuses a lab in which a fault could not show.
func TestCandidates(t *testing.T) {
	faults := len(sabotage.All())
	thirty := params.DefaultFault()
	thirty.Percent = 30
	e := opened(t, &fakeLab{look: applications(upTo("authz")...)}, filepath.Join(t.TempDir(), "notes.json"))
	e.claims = lesson.Claims()
	for _, c := range []struct {
		on   []lesson.Lesson
		want int
	}{
		{nil, 0},
		{upTo("fault"), 0},
		{upTo("without"), 0},
		{upTo("authz"), faults - 1},
		{upTo("strict"), faults},
		// 30 % instead of 30 % is no fault.
		{[]lesson.Lesson{lesson.Waypoint(), lesson.Fault(thirty), lesson.Authz("", true)}, faults - 1},
	} {
		got, err := e.candidates(applications(c.on...))
		if len(got) != c.want || (err == nil) != (c.want > 0) {
			t.Errorf("%d lessons: %v %v", len(c.on), got, err)
		}
	}
	// Without packets, a fault that changes no configuration would never show.
	without := applications(upTo("strict")...)
	without.NoPackets = "no packets"
	if got, err := e.candidates(without); err != nil || slices.Contains(got, 1) || len(got) != faults-1 {
		t.Errorf("without packets: %v %v", got, err)
	}
	// A fault whose claims this lab cannot judge would count as fixed at once.
	e.claims = slices.DeleteFunc(e.claims, func(c probe.Claim) bool { return c.ID == "unmeshed-closed" })
	if got, err := e.candidates(applications(upTo("strict")...)); err != nil || len(got) != faults-1 {
		t.Errorf("without a claim: %v %v", got, err)
	}
	err := e.Break(t.Context(), faults)
	if err == nil || !strings.Contains(e.View().Failed, "accepted: 1, 2") {
		t.Errorf("a fault that needs -strict: %v, shown %q", err, e.View().Failed)
	}
}

// TestEverySabotageHasAStation makes the station of each: its claims can be judged, and no hint holds its title.
func TestEverySabotageHasAStation(t *testing.T) {
	text, err := breakText("mage")
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range sabotage.All() {
		station := Broken{Number: i + 1}.station(text)
		if len(station.Claims) == 0 || len(station.Hints) != 2 || strings.Contains(station.Explanation, s.Title) {
			t.Errorf("%s: %+v", s.Name, station)
		}
		done := Broken{Number: i + 1, Notes: Notes{Done: time.Now()}}.station(text)
		if !strings.Contains(done.Explanation, s.Title) {
			t.Errorf("%s, fixed: %s", s.Name, done.Explanation)
		}
	}
}
