package workshop

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
)

// fakeLab is a lab whose state a test sets. It judges a claim as refuted unless it is in holds.
type fakeLab struct {
	mu      sync.Mutex
	look    Look
	holds   []string
	vague   bool // claims that do not hold are inconclusive, not refuted
	changed func(string)
	typed   []string
	judged  int
	takes   time.Duration // how long a check takes
	breaks  time.Duration // how long a fault takes to show
	failing string        // what fails: look, break, or a command
	// installs is what sm:install does.
	installs func()
}

// fails makes one thing fail, or nothing.
func (f *fakeLab) fails(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing = what
}

func (f *fakeLab) Look(context.Context) (Look, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing == "look" {
		return Look{}, errors.New("no API server")
	}
	return f.look, nil
}

func (f *fakeLab) Watch(ctx context.Context, changed func(string)) error {
	f.mu.Lock()
	f.changed = changed
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

// change changes the lab as a learner's kubectl would.
func (f *fakeLab) change(object string, change func()) {
	f.mu.Lock()
	change()
	changed := f.changed
	f.mu.Unlock()
	if changed != nil {
		changed(object)
	}
}

func (f *fakeLab) Judge(
	ctx context.Context, _ probe.Lessons, claims []string, progress func(string),
) (probe.Report, error) {
	progress("measuring")
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return probe.Report{}, context.Cause(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judged++
	var report probe.Report
	for _, id := range claims {
		result := probe.Result{
			ID: id, Title: id, Verdict: probe.Refuted, Causes: []string{"the label is missing"},
			Checks: []probe.Check{{Name: "status", Verdict: probe.Refuted, Text: "expected 200"}},
		}
		if slices.Contains(f.holds, id) {
			result.Verdict, result.Causes = probe.Proven, nil
			result.Checks[0].Verdict = probe.Proven
		} else if f.vague {
			result.Verdict = probe.Inconclusive
		}
		report.Claims = append(report.Claims, result)
	}
	return report, nil
}

func (f *fakeLab) Type(_ context.Context, command string, line func(string)) error {
	line("running")
	f.mu.Lock()
	failing := f.failing == command
	f.mu.Unlock()
	if failing {
		return errors.New("it failed")
	}
	if command == "mage sm:install" && f.installs != nil {
		f.installs()
	}
	f.change("Gateway appb-waypoint", func() {
		f.typed = append(f.typed, command)
		switch command {
		case "mage sm:waypoint":
			f.look.Lessons = lesson.With(f.look.Lessons, lesson.Waypoint())
			f.holds = append(f.holds, "waypoint-appa", "waypoint-gateway")
		case "mage sm:waypoint -off":
			f.look.Lessons = lesson.States(lesson.Apps())
			f.holds = nil
		}
	})
	return nil
}

func (f *fakeLab) Manual(context.Context, string, probe.Lessons) (Manual, error) {
	return Manual{
		Files:       []File{{"gateway.yaml", "# a comment\nkind: Gateway\n"}},
		Differences: []string{"create Gateway default/appb-waypoint"},
		Diffs:       []File{{"Service appb", "--- live\n+++ applied\n@@ -1 +1 @@\n-old <b>\n+new\n"}},
		Commands:    []string{"kubectl apply -f - <<'EOF'\nkind: Gateway\nEOF"},
	}, nil
}

func (f *fakeLab) Break(context.Context, int) error {
	f.mu.Lock()
	failing := f.failing == "break"
	f.mu.Unlock()
	if failing {
		return errors.New("the object is missing")
	}
	time.AfterFunc(f.breaks, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.holds = nil
	})
	return nil
}

func (f *fakeLab) Mend(context.Context, int) ([]string, error) {
	return []string{"mage sm:waypoint"}, nil
}

// claims are those of the lessons, as far as the tests need them: with traffic, made with the right lessons.
func claims() []probe.Claim {
	claim := func(id string, when func(probe.Lessons) bool) probe.Claim {
		return probe.Claim{ID: id, Title: "claim " + id, When: when, Shot: probe.Shot{Caller: probe.Appa}}
	}
	fault := probe.On("fault")
	return []probe.Claim{
		claim("reach-appa", probe.Always), claim("reach-gateway", probe.Always),
		claim("gateway-other-host", probe.Always),
		claim("waypoint-appa", probe.On("waypoint")), claim("waypoint-gateway", probe.On("waypoint")),
		{ID: "waypoint-appb-only", When: probe.On("waypoint")}, // decided on configuration alone
		claim("fault-appa", fault), claim("fault-gateway", fault), claim("fault-prefix", fault),
		claim("authz-get-gateway", probe.On("authz")), claim("authz-post-gateway", probe.On("authz")),
		claim("authz-taken-out-appa", probe.All(probe.On("authz"), probe.Not(probe.Admitted(probe.Appa)))),
		claim("waypoint-off", probe.Not(probe.On("waypoint"))),
	}
}

// applications is a lab with the applications and some more lessons.
func applications(more ...lesson.Lesson) Look {
	return Look{
		Lab: "test", Installed: true, Created: time.Unix(1e9, 0).UTC(),
		Lessons: lesson.States(append(more, lesson.Apps())...),
	}
}

// upTo lists the lessons that are on at a station.
func upTo(station string) []lesson.Lesson {
	on := []lesson.Lesson{lesson.Waypoint()}
	if station != "waypoint" {
		on = append(on, lesson.Fault(params.DefaultFault()))
	}
	switch station {
	case "authz":
		on = append(on, lesson.Authz("", false))
	case "without":
		on = append(on, lesson.Authz("appa", false))
	case "strict":
		on = append(on, lesson.Authz("", true))
	}
	return on
}
