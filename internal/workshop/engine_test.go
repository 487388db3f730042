package workshop

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
)

// TestStations reads every text. The commands of a station are those that change the lab.
func TestStations(t *testing.T) {
	all, err := Stations("mage")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
		if len(s.Do()) == 0 || len(s.Choices) < 2 || s.Title == "" {
			t.Errorf("station %s is not whole: %+v", s.Name, s)
		}
		for _, line := range strings.Split(strings.Join([]string{s.Goal, s.Steps, s.Explanation, s.Next}, "\n"), "\n") {
			if len(line) > 125 {
				t.Errorf("station %s has a line of %d characters: %s", s.Name, len(line), line)
			}
		}
	}
	want := "install apps waypoint fault authz without strict telemetry split l4 off"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the stations are %s, want %s", got, want)
	}
	if got := all[10].Do(); !slices.Equal(got, []string{
		"mage sm:l4 -off", "mage sm:split -off", "mage sm:telemetry -off", "mage sm:authz -off", "mage sm:fault -off",
		"mage sm:waypoint -off",
	}) {
		t.Errorf("the way back is %q", got)
	}
	if got := all[1].Do(); !slices.Equal(got, []string{"mage sm:apps"}) {
		t.Errorf("the commands of station apps are %q", got)
	}
}

func TestParseRefuses(t *testing.T) {
	good := "# T\n\n## Goal\n\ng\n\n## Prediction\n\nq?\n\n- a: x\n- b: y\n\nAnswer: a\n\n## Steps\n\ns\n\n" +
		"## Hints\n\n1. one\n   more\n2. two\n\n## Explanation\n\ne\n\n## Next\n\nn\n"
	text, err := parse(good)
	if err != nil || text.Hints[0] != "one more" || text.Question != "q?" || text.Choices[1].Text != "y" {
		t.Fatalf("%+v %v", text, err)
	}
	for _, bad := range []string{
		strings.TrimPrefix(good, "# T"),
		strings.Replace(good, "Answer: a", "Answer: c", 1),
		strings.Replace(good, "## Goal\n\ng", "## Goal", 1),
		strings.Replace(good, "2. two\n", "", 1),
	} {
		if _, err := parse(bad); err == nil {
			t.Errorf("this text was taken:\n%s", bad)
		}
	}
}

// TestStart finds the learner's station from what the cluster has, and goes on after a station that is done.
func TestStart(t *testing.T) {
	all, err := Stations("mage")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		look Look
		done string
		want string
	}{
		{Look{}, "", "install"},
		{Look{Installed: true}, "", "install"},
		{Look{Installed: true}, "install", "apps"},
		{applications(), "", "apps"},
		{applications(), "apps", "waypoint"},
		{applications(upTo("waypoint")...), "apps", "waypoint"},
		{applications(upTo("fault")...), "apps", "fault"},
		{applications(upTo("authz")...), "fault", "authz"},
		{applications(upTo("authz")...), "authz", "without"},
		{applications(upTo("without")...), "authz", "without"},
		{applications(upTo("strict")...), "", "strict"},
		{applications(upTo("strict")...), "strict", "split"},
		{withPrometheus(applications(upTo("strict")...)), "strict", "telemetry"},
		{withPrometheus(applications(append(upTo("strict"), lesson.Telemetry())...)), "strict telemetry", "split"},
		{applications(lesson.Waypoint(), lesson.Split(lesson.DefaultWeight)), "strict", "split"},
		{applications(lesson.Waypoint(), lesson.Split(lesson.DefaultWeight)), "strict split", "l4"},
		{applications(append(upTo("authz"), lesson.L4(false))...), "strict split l4", "off"},
		{applications(), "strict", "off"},
		{applications(), "apps strict off", "off"},
	} {
		done := func(name string) bool { return slices.Contains(strings.Fields(c.done), name) }
		shown := possible(all, c.look)
		if got := shown[start(shown, c.look, done)].Name; got != c.want {
			t.Errorf("with %+v and %q done: station %s, want %s", c.look, c.done, got, c.want)
		}
	}
}

func withPrometheus(look Look) Look {
	look.Addons = []string{"prometheus"}
	return look
}

// opened is an engine on a fake lab, with a file of its own.
func opened(t *testing.T, lab *fakeLab, file string) *Engine {
	t.Helper()
	e, err := New(lab, NewFeed(nil), claims(), file, "mage")
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

// running runs an engine in a bubble until the test has ended.
func running(ctx context.Context, e *Engine) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.Run(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// TestNotices changes the lab as kubectl would: the station turns done without a key, and its notes survive.
func TestNotices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "notes.json")
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications(), takes: 2 * time.Second}
		e := opened(t, lab, file)
		mustDo(t, e.Go(2))
		stop := running(t.Context(), e)
		synctest.Wait()
		time.Sleep(time.Minute)
		if v := e.View(); v.Report != nil || v.Done || len(v.Items) != 2 {
			t.Errorf("before anything was done: %+v", v)
		}
		began := time.Now()
		lab.change("Gateway appb-waypoint", func() {
			lab.look.Lessons = lesson.States(lesson.Apps(), lesson.Waypoint())
		})
		time.Sleep(5 * time.Second)
		if v := e.View(); v.Report == nil || v.Done || v.Items[0].Verdict != probe.Refuted ||
			v.Items[0].Text != "expected 200" {
			t.Errorf("while the proxies do not have it: %+v", v.Items)
		}
		lab.mu.Lock()
		lab.holds = []string{"waypoint-appa", "waypoint-gateway"} // without an event, as a proxy gets it
		lab.mu.Unlock()
		for !e.View().Done {
			<-e.Changed()
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("done after %s", took)
		}
		judged := lab.judged
		time.Sleep(time.Hour)
		if lab.judged != judged {
			t.Errorf("%d more checks although nothing changed", lab.judged-judged)
		}
		lab.change("Service appb", func() { lab.holds = nil })
		time.Sleep(4 * time.Second)
		if e.View().Done {
			t.Error("still done after the label was removed")
		}
		stop()
	})
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the notes: %v %v", info, err)
	}
	lab := &fakeLab{look: applications(upTo("waypoint")...)}
	if v := opened(t, lab, file).View(); v.Station.Name != "fault" {
		t.Errorf("after a restart: %s", v.Station.Name)
	}
	other := &fakeLab{look: applications(upTo("waypoint")...)}
	other.look.Created = time.Unix(2e9, 0).UTC()
	if v := opened(t, other, file).View(); v.Station.Name != "waypoint" || !v.Notes.Done.IsZero() {
		t.Errorf("in a new lab: %s, %+v", v.Station.Name, v.Notes)
	}
}

// TestChangeDuringCheck gives a check up when something changes, and judges what is there then.
func TestChangeDuringCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications(upTo("waypoint")...), takes: 10 * time.Second}
		e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
		stop := running(t.Context(), e)
		time.Sleep(5 * time.Second)
		if e.View().Checking == "" {
			t.Error("no check runs")
		}
		lab.change("Service appb", func() { lab.holds = []string{"waypoint-appa", "waypoint-gateway"} })
		time.Sleep(11 * time.Second)
		if v := e.View(); !v.Done || lab.judged != 1 {
			t.Errorf("done %t after %d checks", v.Done, lab.judged)
		}
		stop()
	})
}

// TestUndecided repeats a check that decided nothing, although nothing changes: less and less often, up to once a
// minute, until the lab changes.
func TestUndecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications(upTo("waypoint")...), vague: true}
		e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
		stop := running(t.Context(), e)
		mustDo(t, e.Go(2))
		check := func() (after time.Duration) {
			began, checks := time.Now(), e.View().Checks
			for e.View().Checks == checks {
				<-e.Changed()
			}
			return time.Since(began)
		}
		check()
		pauses := func() {
			t.Helper()
			for _, wait := range []time.Duration{5, 10, 20, 40, 60, 60} {
				wait *= time.Second
				if got := check(); got < wait || got > wait+time.Second {
					t.Errorf("the next check after %s, want %s", got, wait)
				}
			}
		}
		pauses()
		if v := e.View(); v.Done {
			t.Error("done although no claim is proven")
		}
		lab.change("Gateway appb-waypoint", func() {})
		for range 2 {
			if got := check(); got > 2*time.Second {
				t.Errorf("a check %s after a change", got)
			}
		}
		for check() < 4*time.Second {
		}
		lab.mu.Lock()
		lab.holds = []string{"waypoint-appa", "waypoint-gateway"}
		lab.mu.Unlock()
		if got := check(); got > 11*time.Second || !e.View().Done {
			t.Errorf("not done by a check after %s", got)
		}
		stop()
	})
}

// TestMoves follows a learner who types the target of a later station, and leaves one alone who went back to a station.
func TestMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications()}
		e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
		stop := running(t.Context(), e)
		mustDo(t, e.Go(2))
		time.Sleep(3 * time.Second)
		lab.change("VirtualService appb-delay", func() { lab.look = applications(upTo("fault")...) })
		time.Sleep(3 * time.Second)
		if v := e.View(); v.Station.Name != "waypoint" {
			t.Errorf("the station's own lesson is on, and the learner is at %s", v.Station.Name)
		}
		lab.change("Gateway appb-waypoint", func() { lab.look = applications() })
		time.Sleep(3 * time.Second)
		lab.change("AuthorizationPolicy x", func() {
			lab.look = applications(lesson.Waypoint(), lesson.Authz("", false))
		})
		mustDo(t, e.Go(3))
		time.Sleep(3 * time.Second)
		if v := e.View(); v.Station.Name != "authz" {
			t.Errorf("sm:authz was typed, and the learner is at %s", v.Station.Name)
		}
		lab.change("Service appb", func() {
			lab.look = applications()
			e.mu.Lock()
			defer e.mu.Unlock()
			e.progress.Stations["strict"] = Notes{Done: time.Now()} // so that the way back is met
		})
		time.Sleep(3 * time.Second)
		mustDo(t, e.Go(2))
		mustDo(t, e.Check())
		time.Sleep(time.Minute)
		if v := e.View(); v.Station.Name != "waypoint" {
			t.Errorf("the learner went back to the waypoint, and is at %s", v.Station.Name)
		}
		stop()
	})
}

func TestHintsPredictionsAndCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notes.json")
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications()}
		e := opened(t, lab, file)
		mustDo(t, e.Go(2))
		stop := running(t.Context(), e)
		if err := e.Predict("x"); err == nil || e.View().Failed != `"x" is not an answer; the answers are a, b, c` {
			t.Errorf("%v, shown %q", err, e.View().Failed)
		}
		mustDo(t, e.Predict("b"))
		if failed := e.View().Failed; failed != "" {
			t.Errorf("the error stays: %s", failed)
		}
		for range 4 {
			mustDo(t, e.Hint())
		}
		time.Sleep(3 * time.Second)
		v := e.View()
		if v.Notes.Prediction != "b" || len(v.Hints) != 3 || v.Hints[2] != "the label is missing" {
			t.Errorf("%+v %q", v.Notes, v.Hints)
		}
		if err := e.Next(); err == nil || e.View().Index != 2 || !strings.Contains(e.View().Failed, "not done yet") {
			t.Errorf("%v: went on although the station is not done", err)
		}
		if err := e.Do(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second)
		if v := e.View(); !v.Done || !slices.Equal(v.Output, []string{"$ mage sm:waypoint", "running"}) {
			t.Errorf("after the command: %t %q", v.Done, v.Output)
		}
		if err := e.Undo(t.Context()); err != nil || !slices.Equal(lab.typed,
			[]string{"mage sm:waypoint", "mage sm:waypoint -off"}) {
			t.Errorf("%v %q", err, lab.typed)
		}
		// sm:fault would refuse a waypoint that no target has made.
		lab.change("Gateway appb-waypoint", func() {
			lab.look, lab.typed = applications(upTo("waypoint")...), nil
			lab.look.ByHand = []string{"waypoint"}
		})
		time.Sleep(3 * time.Second)
		mustDo(t, e.Go(3))
		if err := e.Do(t.Context()); err != nil || !slices.Equal(lab.typed,
			[]string{"mage sm:waypoint", "mage sm:fault"}) {
			t.Errorf("%v %q", err, lab.typed)
		}
		stop()
	})
	notes, err := Load(file)
	if err != nil || notes.Stations["waypoint"].Hints != 3 {
		t.Errorf("%+v %v", notes, err)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(&fakeLab{}, NewFeed(nil), claims(), file, "mage"); err == nil {
		t.Error("a file that holds no notes was taken")
	}
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestErrorsAreShown does what cannot be done: each error is part of the view, which both surfaces show, until the
// learner does something else.
func TestErrorsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications()}
		e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
		stop := running(t.Context(), e)
		time.Sleep(time.Second)
		mustDo(t, e.Go(0))
		for name, c := range map[string]struct {
			do   func() error
			says string
		}{
			"undo": {func() error { return e.Undo(t.Context()) }, "has nothing to undo"},
			"break": {
				func() error { return e.Break(t.Context(), 0) },
				"sm:break needs sm:waypoint, sm:fault, sm:authz: run mage sm:lab first",
			},
			"break -off":   {func() error { return e.Restore(t.Context()) }, "no fault"},
			"no station":   {func() error { return e.Go(99) }, "stations 1 to 10"},
			"no answer":    {func() error { return e.Predict("?") }, "the answers are a, b, c"},
			"command":      {func() error { lab.fails("mage sm:install"); return e.Do(t.Context()) }, "it failed"},
			"another lab ": {func() error { lab.fails("look"); return e.Check() }, "no API server"},
		} {
			_ = c.do()
			time.Sleep(5 * time.Second)
			if v := e.View(); !strings.Contains(v.Failed+v.Trouble, c.says) {
				t.Errorf("%s: shown %q %q, want %q", name, v.Failed, v.Trouble, c.says)
			}
			lab.fails("")
			mustDo(t, e.Check())
			time.Sleep(5 * time.Second)
			if v := e.View(); v.Failed+v.Trouble != "" {
				t.Errorf("%s: still shown %q %q", name, v.Failed, v.Trouble)
			}
		}
		stop()
	})
}

// TestDeletedLab goes back to the first station.
func TestDeletedLab(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: applications(upTo("waypoint")...)}
		e := opened(t, lab, filepath.Join(t.TempDir(), "notes.json"))
		stop := running(t.Context(), e)
		time.Sleep(5 * time.Second)
		there := lab.look
		lab.change("Service appb", func() {
			lab.look = Look{Lab: "test", Why: "there is no cluster"}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.progress.Break = &Broken{Number: 1}
		})
		time.Sleep(5 * time.Second)
		if v := e.View(); v.Station.Name != "install" || v.Done || v.Broken || v.Count != 11 {
			t.Errorf("at %s of %d, done %t, broken %t", v.Station.Name, v.Count, v.Done, v.Broken)
		}
		// A cluster that was only stopped has its fault still.
		lab.change("Service appb", func() { lab.look = there })
		time.Sleep(5 * time.Second)
		if v := e.View(); !v.Broken {
			t.Errorf("started again, and at %s", v.Station.Name)
		}
		stop()
	})
}

// TestInstallStation installs a lab: the station is done when the command has ended, and the notes on it are kept. In
// the lab that is installed next they are new.
func TestInstallStation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "notes.json")
	synctest.Test(t, func(t *testing.T) {
		lab := &fakeLab{look: Look{Lab: "test", Why: "there is no cluster"}, takes: time.Second}
		installed := func() { lab.look = Look{Lab: "test", Installed: true, Created: time.Now().UTC()} }
		e := opened(t, lab, file)
		stop := running(t.Context(), e)
		mustDo(t, e.Predict("a"))
		mustDo(t, e.Hint())
		time.Sleep(10 * time.Second)
		lab.installs = func() {
			lab.change("ConfigMap record", installed)
			time.Sleep(20 * time.Second) // other parts are installed
			if v := e.View(); v.Done {
				t.Error("done while sm:install is at work")
			}
		}
		mustDo(t, e.Do(t.Context()))
		time.Sleep(5 * time.Second)
		if v := e.View(); !v.Done || v.Notes.Prediction != "a" || v.Notes.Hints != 1 || lasted(v.Notes) > time.Minute {
			t.Errorf("done %t, notes %+v", v.Done, v.Notes)
		}
		mustDo(t, e.Next())
		lab.change("Namespace istio-system", func() { lab.look = Look{Lab: "test", Why: "there is no cluster"} })
		time.Sleep(5 * time.Second)
		if v := e.View(); v.Station.Name != "install" || v.Notes.Prediction != "" || !v.Notes.Done.IsZero() {
			t.Errorf("deleted: %s, notes %+v", v.Station.Name, v.Notes)
		}
		lab.change("ConfigMap record", installed)
		time.Sleep(5 * time.Second)
		if v := e.View(); !v.Done || v.Notes.Prediction != "" {
			t.Errorf("the next lab: done %t, notes %+v", v.Done, v.Notes)
		}
		stop()
	})
}

func TestSummary(t *testing.T) {
	began := time.Unix(1e9, 0)
	p := Progress{Stations: map[string]Notes{
		"install": {Began: began, Done: began.Add(90 * time.Second), Hints: 1},
		"apps":    {Began: began, Done: began.Add(30 * time.Second)},
		"fault":   {Began: began, Hints: 2},
		"authz":   {Done: began}, // when the learner came is not known
	}}
	stations := []Station{{Name: "install"}, {Name: "apps"}, {Name: "fault"}, {Name: "authz"}}
	want := "This was the last station. You did 3 of 4 stations in 2m0s, with 1 hint."
	if got := p.summary(stations); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestNamespace shows commands and identities for the namespace of the lab.
func TestNamespace(t *testing.T) {
	look := applications(upTo("waypoint")...)
	look.Namespace = "shop"
	e := opened(t, &fakeLab{look: look}, filepath.Join(t.TempDir(), "notes.json"))
	for i := range e.View().Count {
		mustDo(t, e.Go(i))
		s := e.View().Station
		all := strings.Join(append(slices.Clone(s.Hints), s.Goal, s.Steps, s.Explanation, s.Next), "\n")
		if strings.Contains(all, "default") ||
			strings.Count(all, "kubectl -n shop ") != strings.Count(all, "kubectl")-strings.Count(all, "`kubectl`") {
			t.Errorf("station %s in namespace shop:\n%s", s.Name, all)
		}
	}
	broken := Broken{Number: 2}.station(Text{}).in("shop")
	if hint := broken.Hints[1]; !strings.Contains(hint, "kubectl -n shop get services") {
		t.Errorf("the hint of a fault is %q", hint)
	}
	broken = Broken{Number: 1}.station(Text{}).in("shop")
	if hint := broken.Hints[1]; !strings.Contains(hint, "kubectl -n istio-system get daemonsets") {
		t.Errorf("the hint of a fault outside the lessons' namespace is %q", hint)
	}
}
