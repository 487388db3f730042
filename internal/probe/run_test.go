package probe_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	istiotype "istio.io/api/type/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	. "ambientlab/internal/probe"
	"ambientlab/internal/probe/traffic"
)

var (
	off       = inForce{}
	waypoint  = inForce{Waypoint: true}
	faultOnly = inForce{Waypoint: true, Fault: fault(50, 2*time.Second, "/headers")}
	authzOnly = inForce{Waypoint: true, Authz: &params.Authz{Allowed: params.Callers()}}
	everyOn   = inForce{Waypoint: true, Fault: faultOnly.Fault, Authz: authzOnly.Authz}
	closed    = inForce{
		Waypoint: true, Fault: faultOnly.Fault,
		Authz: &params.Authz{Allowed: params.Callers(), Strict: true},
	}
	takenOut = inForce{Waypoint: true, Authz: &params.Authz{Allowed: []string{"gateway-istio"}}}
)

func fault(percent float64, delay time.Duration, path string) *params.Fault {
	return &params.Fault{Percent: percent, Delay: delay, Path: path}
}

func exactly(f *params.Fault) *params.Fault {
	f.Exact = true
	return f
}

// A lab that is as claimed proves every claim, with any set of lessons on.
func TestRightLabIsProven(t *testing.T) {
	for name, lessons := range map[string]inForce{
		"off": off, "waypoint": waypoint, "fault": faultOnly, "authz": authzOnly, "all": everyOn, "strict": closed,
		"taken out":       takenOut,
		"small share":     {Waypoint: true, Fault: fault(10, time.Second, "/ip")},
		"whole share":     {Waypoint: true, Fault: fault(100, time.Second, "/headers")},
		"truncated share": {Waypoint: true, Fault: fault(57.14, time.Second, "/headers")},
		"exact path":      {Waypoint: true, Fault: exactly(fault(50, time.Second, "/headers"))},
		"every path":      {Waypoint: true, Fault: fault(50, time.Second, "/")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSim(lessons)
			report, err := Run(t.Context(), s.env(lessons))
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range report.Claims {
				if c.Verdict != Proven || len(c.Causes) > 0 {
					t.Errorf("%s: %s: %+v %q", c.ID, c.Verdict, c.Checks, c.Causes)
				}
			}
			if !report.Proven() || !s.closed {
				t.Errorf("proven %v, closed %v", report.Proven(), s.closed)
			}
		})
	}
}

// Every way to be wrong or in doubt: what is claimed, what is really so, and what must come of which claim.
func TestWrongLabIsNotProven(t *testing.T) {
	type want struct {
		id      string
		verdict Verdict
		says    string // in a check's text
		cause   string // in a cause
	}
	for _, c := range []struct {
		name    string
		claimed inForce
		change  func(*sim)
		want    []want
	}{
		{"appa out of the mesh", everyOn, func(s *sim) {
			s.outOfMesh()
		}, []want{
			{"waypoint-appa", Refuted, "0 of the 20", "dataplane-mode is none"},
			{"fault-appa", Refuted, "went around", "not in the mesh"},
			{"authz-get-appa", Refuted, "went around", "not in the mesh"},
			{"authz-post-appa", Refuted, "expected \"RBAC: access denied\"", "not in the mesh"},
			{"waypoint-gateway", Proven, "", ""},
		}},
		{
			"ingress label removed", everyOn,
			func(s *sim) { s.noIngress = true; delete(s.objects.Service.Labels, "istio.io/ingress-use-waypoint") },
			[]want{
				{"waypoint-gateway", Refuted, "around", "ingress-use-waypoint"},
				{"fault-gateway", Refuted, "0 of", "ingress-use-waypoint"},
				{"authz-post-gateway", Refuted, "", "ingress-use-waypoint"},
				{"waypoint-appa", Proven, "", ""},
			},
		},
		{
			"waypoint scaled to zero", everyOn,
			func(s *sim) { s.scaledToZero = true; *s.objects.WaypointDeployment.Spec.Replicas = 0 },
			[]want{
				{"waypoint-appa", Refuted, "no pod that is ready", "scaled to zero"},
				{"fault-appa", Refuted, "no pod", "scaled to zero"},
				{"authz-outsider", Refuted, "", "scaled to zero"},
			},
		},
		{
			"no waypoint at all", everyOn,
			func(s *sim) { s.actual.Waypoint, s.objects.Waypoint, s.objects.Service.Labels = false, nil, nil },
			[]want{
				{"waypoint-appa", Refuted, "", "does not exist"},
				{"waypoint-gateway", Refuted, "", "no label istio.io/use-waypoint"},
			},
		},
		{"gateway not programmed", waypoint, func(s *sim) {
			s.scaledToZero = true
			s.objects.Waypoint.Status.Conditions[0] = metav1.Condition{
				Type: "Programmed", Status: "False",
				Reason: "AddressNotAssigned",
			}
		}, []want{{"waypoint-appa", Refuted, "", "AddressNotAssigned"}}},
		{"policy with selector", authzOnly, func(s *sim) {
			s.selector = true
			s.objects.Policies[0].Spec.TargetRefs, s.objects.Policies[0].Spec.Selector = nil,
				&istiotype.WorkloadSelector{}
		}, []want{
			{"authz-post-appa", Refuted, "expected: all", "`selector`"},
			{"authz-outsider", Refuted, "", "`selector`"},
		}},
		{"policy not attached", authzOnly, func(s *sim) {
			s.actual.Authz = nil
			s.objects.Policies = nil
		}, []want{{"authz-post-appa", Refuted, "", "AuthorizationPolicy default/appb-get-only does not exist"}}},
		{"policy on another target", authzOnly, func(s *sim) {
			s.actual.Authz = nil
			s.objects.Policies[0].Spec.TargetRefs[0].Name = "appc"
		}, []want{{"authz-post-gateway", Refuted, "", "Service/appc"}}},
		{"policy not accepted", authzOnly, func(s *sim) {
			s.actual.Authz = nil
			condition := s.objects.Policies[0].Status.Conditions[0]
			condition.Status, condition.Message = "False", "target not found"
		}, []want{{"authz-post-appa", Refuted, "", "target not found"}}},
		{"policy still there", waypoint, func(s *sim) {
			s.actual.Authz = authzOnly.Authz
			s.objects.Policies = goodObjects(authzOnly).Policies
		}, []want{{"authz-off-post", Refuted, "403", "still attached"}}},
		{
			"virtual service for another host", faultOnly,
			func(s *sim) { s.actual.Fault, s.objects.VirtualServices[0].Spec.Hosts = nil, []string{"appc"} },
			[]want{
				{"fault-appa", Refuted, "0 of", "host appc"},
				{"fault-gateway", Refuted, "0 of", "host appc"},
			},
		},
		{
			"no virtual service", faultOnly, func(s *sim) { s.actual.Fault, s.objects.VirtualServices = nil, nil },
			[]want{{"fault-appa", Refuted, "", "VirtualService default/appb-delay does not exist"}},
		},
		{
			"30 % where 50 % is claimed", faultOnly,
			func(s *sim) { s.actual.Fault.Percent, delayOf(s.objects.VirtualServices[0]).Percentage.Value = 30, 30 },
			[]want{
				{"fault-appa", Refuted, "set: 50 %", "asks for 30 %"},
				{"fault-gateway", Refuted, "set: 50 %", "asks for 30 %"},
			},
		},
		{"another path delayed", faultOnly, func(s *sim) {
			s.actual.Fault.Path, s.objects.VirtualServices[0].Spec.Http[0].Match[0].Uri.MatchType = "/ip",
				&networkingapi.StringMatch_Prefix{Prefix: "/ip"}
		}, []want{{"fault-appa", Refuted, "expected: none", "delays /ip"}}},
		{
			"delay shorter than set", faultOnly, func(s *sim) { s.actual.Fault.Delay = 1600 * time.Millisecond },
			[]want{{"fault-appa", Refuted, "too fast for this one", ""}},
		},
		{
			"delay much longer than set", faultOnly, func(s *sim) { s.actual.Fault.Delay = 6 * time.Second },
			[]want{{"fault-appa", Refuted, "longer than one delay explains", "None of the known"}},
		},
		{"fault still on", waypoint, func(s *sim) {
			s.actual.Fault, s.objects.VirtualServices = faultOnly.Fault, goodObjects(faultOnly).VirtualServices
		}, []want{
			{"fault-off-appa", Refuted, "expected: none", "still asks"},
		}},
		{
			"machine busy", waypoint, func(s *sim) { s.hiccups = 2 },
			[]want{{"fault-off-appa", Inconclusive, "busy", ""}},
		},
		{
			"baseline too slow", faultOnly, func(s *sim) { s.noise = 1600 * time.Millisecond },
			[]want{{"fault-appa", Inconclusive, "the machine seems busy", ""}},
		},
		{
			"share too small to know",
			inForce{Waypoint: true, Fault: fault(0.2, time.Second, "/headers")},
			func(*sim) {},
			[]want{{"fault-appa", Inconclusive, "more requests would be needed", ""}},
		},
		{
			"still open though strict", closed,
			func(s *sim) { s.actual.Authz.Strict, s.objects.PeerAuthentications = false, nil },
			[]want{
				{"direct-closed", Refuted, "instead 5 × 200", "STRICT"},
				{"unmeshed-closed", Refuted, "no HTTP answer; expected", ""},
			},
		},
		{"closed though not strict", authzOnly, func(s *sim) {
			s.actual.Authz.Strict = true
			s.objects.PeerAuthentications = goodObjects(closed).PeerAuthentications
		}, []want{
			{"direct-open", Refuted, "no HTTP answer", ""},
			{"unmeshed-open", Refuted, "no HTTP answer", "STRICT"},
		}},
		{
			"foreign traffic, and every request in the log", waypoint,
			func(s *sim) { s.foreign = slices.Repeat([]int{3}, 99) },
			[]want{{"waypoint-appa", Proven, "other traffic included (curl/8)", ""}},
		},
		{
			"foreign traffic throughout, which could be those that are missing", waypoint,
			func(s *sim) { s.noIngress, s.foreign = true, slices.Repeat([]int{30}, 99) },
			[]want{{
				"waypoint-gateway", Inconclusive,
				"other traffic used the waypoint during the measurement (curl/8) (measured 2 times)", "",
			}},
		},
		{
			"foreign traffic once, which could be those that are missing", waypoint,
			func(s *sim) { s.noIngress, s.foreign = true, []int{30} },
			[]want{{"waypoint-gateway", Refuted, "went around it (measured 2 times)", ""}},
		},
		{
			"foreign traffic, too little for those that are missing", waypoint,
			func(s *sim) { s.noIngress, s.foreign = true, []int{3} },
			[]want{{"waypoint-gateway", Refuted, "the requests went around it", ""}},
		},
		{
			"sent twice", waypoint, func(s *sim) { s.retried = true },
			[]want{{"waypoint-appa", Inconclusive, "sent twice", ""}},
		},
		{"lost exit status", everyOn, func(s *sim) { s.lost = true }, []want{
			{"reach-appa", Inconclusive, "exit status of the command was lost", ""},
			{"authz-post-appa", Inconclusive, "lost", ""},
		}},
		{
			"caller cannot be started", authzOnly, func(s *sim) { s.unsent = errBroken },
			[]want{{"authz-outsider", Inconclusive, "the caller is not available: broken", ""}},
		},
		{
			"appb restarted again and again", everyOn, func(s *sim) { s.restartAfter, s.restarts = "appb-1", 1000 },
			[]want{{"reach-appa", Inconclusive, "pod appb-1 was restarted", ""}},
		},
		{
			"appb restarted once", everyOn, func(s *sim) { s.restartAfter, s.restarts = "appb-1", 1 },
			[]want{{"reach-appa", Proven, "all 5 requests got 200 (measured 2 times)", ""}},
		},
		{
			"no counters", waypoint, func(s *sim) { s.hideCounters = true },
			[]want{{"waypoint-appa", Proven, "no counter to compare with", ""}},
		},
		{
			"no counter of denials", authzOnly, func(s *sim) { s.hideCounters = true },
			[]want{{"authz-post-appa", Refuted, "no counter of denied", ""}},
		},
		{
			"denied by something else", authzOnly, func(s *sim) { s.deniedEarly = true },
			[]want{{"authz-post-appa", Refuted, "counted 0: something else denied them", ""}},
		},
		{
			"counters unreadable", waypoint, func(s *sim) { s.counterErr = errBroken },
			[]want{{"waypoint-appa", Inconclusive, "cannot be observed", ""}},
		},
		{
			"no principal in the log", waypoint, func(s *sim) { s.hidePrincipal = true },
			[]want{{"waypoint-appa", Inconclusive, "accessLogFormat", ""}},
		},
		{
			"another identity", waypoint, func(s *sim) { s.wrongSeen = "spiffe://cluster.local/ns/default/sa/default" },
			[]want{{"waypoint-gateway", Refuted, "sa/default", ""}},
		},
		{
			"denied in other words", authzOnly, func(s *sim) { s.body = "go away" },
			[]want{{"authz-post-appa", Refuted, "go away", ""}},
		},
		{
			"appa not taken out", takenOut, func(s *sim) { s.actual.Authz.Allowed = params.Callers() },
			[]want{{"authz-taken-out-appa", Refuted, "200", ""}},
		},
		{
			"objects unreadable", waypoint, func(s *sim) { s.scaledToZero, s.objectsErr = true, errBroken },
			[]want{{"waypoint-appa", Refuted, "", "broken"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSim(c.claimed)
			c.change(s)
			report, err := Run(t.Context(), s.env(c.claimed))
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				i := slices.IndexFunc(report.Claims, func(r Result) bool { return r.ID == w.id })
				if i < 0 {
					t.Fatalf("claim %s was not made", w.id)
				}
				got := report.Claims[i]
				says := slices.ContainsFunc(got.Checks, func(k Check) bool { return strings.Contains(k.Text, w.says) })
				cause := w.cause == "" || strings.Contains(strings.Join(got.Causes, "\n"), w.cause)
				if got.Verdict != w.verdict || !says || !cause {
					t.Errorf("%s: %s, want %s saying %q because %q;\nchecks %+v\ncauses %q", w.id, got.Verdict,
						w.verdict, w.says, w.cause, got.Checks, got.Causes)
				}
			}
		})
	}
}

// The lab's negative control as a whole: with appa out of the mesh no claim about appa that needs the waypoint is
// proven, at any settings.
func TestNothingAboutTheWaypointIsProvenOutsideTheMesh(t *testing.T) {
	for _, lessons := range []inForce{waypoint, faultOnly, authzOnly, everyOn, closed} {
		s := newSim(lessons)
		s.appaOutOfMesh = true
		report, err := Run(t.Context(), s.env(lessons))
		if err != nil {
			t.Fatal(err)
		}
		for _, claim := range lesson.Claims() {
			if claim.Shot.Caller != Appa || !claim.NeedsWaypoint() {
				continue
			}
			for _, r := range report.Claims {
				if r.ID == claim.ID && r.Verdict == Proven {
					t.Errorf("%s is proven", r.ID)
				}
			}
		}
	}
}

// What several claims wait for, they wait for side by side, and only once all requests have been sent.
func TestLater(t *testing.T) {
	s := newSim(waypoint)
	env := s.env(waypoint)
	sent, waiting := 0, make(chan struct{}, 2)
	claim := func(id string, verdict Verdict) Claim {
		return Claim{
			ID: id, Title: id, When: func(Lessons) bool { return true },
			Shot: Shot{
				Caller: Appa, Method: "GET", Path: OtherPath, Count: Few, Expect: Expect{Status: 200},
				Gather: func(context.Context, Site) (Judge, error) {
					return func(context.Context, Measurement) ([]Check, Later) {
						sent++
						return []Check{{"now", Proven, ""}}, func(context.Context) []Check {
							waiting <- struct{}{}
							for len(waiting) < cap(waiting) { // the other one
								runtime.Gosched()
							}
							return []Check{{"later", verdict, fmt.Sprint(sent)}}
						}
					}, nil
				},
			},
		}
	}
	env.Claims = []Claim{claim("a", Proven), claim("b", Refuted)}
	report, err := Run(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Verdict{Proven, Refuted} {
		r := report.Claims[i]
		if r.Verdict != want || !slices.Contains(r.Checks, Check{"later", want, "2"}) {
			t.Errorf("%s: %s %+v", r.ID, r.Verdict, r.Checks)
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := newSim(everyOn)
	ctx, cancel := context.WithCancelCause(t.Context())
	s.cancel = func() { cancel(errBroken) }
	s.closeErr = errors.New("no leave to delete")
	report, err := Run(ctx, s.env(everyOn))
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "no leave to delete") || !s.closed {
		t.Errorf("error %v, closed %v", err, s.closed)
	}
	if report.Proven() || len(report.Claims) != 0 {
		t.Errorf("claims %v", report.Claims)
	}
}

func TestOnlyAndDefaults(t *testing.T) {
	s := newSim(waypoint)
	env := s.env(waypoint)
	env.Only = []string{"reach-appa"}
	report, err := Run(t.Context(), env)
	if err != nil || len(report.Claims) != 1 || report.Claims[0].ID != "reach-appa" {
		t.Errorf("%v %v", report.Claims, err)
	}
	if _, err := Run(t.Context(), Env{}); err == nil {
		t.Error("a run without a cluster went well")
	}
	if Conclude(nil) != Inconclusive {
		t.Error("no evidence is not inconclusive")
	}
}

// The table itself: IDs are unique, every claim has evidence, and every shot can be sent.
func TestClaimsAreWellFormed(t *testing.T) {
	env := newSim(everyOn).env(everyOn)
	seen := map[string]bool{}
	for _, c := range lesson.Claims() {
		if seen[c.ID] || c.Title == "" || c.Learn == "" || c.Lesson == "" || c.When == nil {
			t.Errorf("claim %q is a double or lacks something", c.ID)
		}
		seen[c.ID] = true
		if !c.HasTraffic() {
			if !c.HasConfiguration(everyOn.claimed()) {
				t.Errorf("claim %s has no evidence", c.ID)
			}
			continue
		}
		for _, s := range c.Shots() {
			if l, err := env.Load(s); err != nil || l.Count < 1 || l.Count > traffic.MaxCount || l.Path[0] != '/' {
				t.Errorf("%s: load %+v, %v", c.ID, l, err)
			}
			if s.Expect.Share && (len(c.Controls) == 0 || !c.Controls[0].Expect.Prompt) {
				t.Errorf("%s: a share without a baseline", c.ID)
			}
			if s.Expect.Status == OwnStatus && s.Expect.Route != Through {
				t.Errorf("%s: appb's own status is known for requests through the waypoint only", c.ID)
			}
		}
	}
}

// What appb itself answers on the delayed path, and how long it takes, is true without the lesson and must not refute
// it.
func TestOwnAnswersOfTheDelayedPath(t *testing.T) {
	for name, c := range map[string]struct {
		lessons inForce
		change  func(*sim)
		want    map[string]Verdict
		says    string
	}{
		"a teapot": {
			inForce{Waypoint: true, Fault: fault(50, 2*time.Second, "/status/418")},
			func(s *sim) { s.ownStatus = 418 },
			map[string]Verdict{"fault-appa": Proven, "fault-gateway": Proven, "fault-prefix": Proven},
			"answers are appb's own: ",
		},
		"slower than the delay": {
			inForce{Waypoint: true, Fault: fault(50, 2*time.Second, "/delay/3")},
			func(s *sim) { s.ownTime = 3 * time.Second },
			map[string]Verdict{"fault-appa": Proven, "fault-gateway": Proven, "fault-prefix": Proven},
			"above the 3s that appb takes",
		},
		"slow, and all of them delayed, with -strict": {
			inForce{Waypoint: true, Fault: fault(100, time.Second, "/delay/3"), Authz: closed.Authz},
			func(s *sim) { s.ownTime = 3 * time.Second },
			map[string]Verdict{"fault-appa": Proven, "fault-gateway": Proven},
			"above the 3s",
		},
		"slow, and not delayed": {
			inForce{Waypoint: true, Fault: fault(50, 2*time.Second, "/delay/3")},
			func(s *sim) { s.ownTime, s.actual.Fault.Percent = 3*time.Second, 0 },
			map[string]Verdict{"fault-appa": Refuted},
			"0 of",
		},
		"a log that does not tell": {
			inForce{Waypoint: true, Fault: fault(50, 2*time.Second, "/status/418")},
			func(s *sim) { s.ownStatus, s.hideDetails = 418, true },
			map[string]Verdict{"fault-appa": Inconclusive},
			"does not tell who gave them",
		},
		"answered by the waypoint": {
			faultOnly,
			func(s *sim) { s.actual.Authz = takenOut.Authz },
			map[string]Verdict{"fault-appa": Refuted},
			"rbac_access_denied",
		},
		"exact where a prefix was asked for": {
			faultOnly,
			func(s *sim) { s.plainMatch = true },
			map[string]Verdict{"fault-appa": Proven, "fault-prefix": Refuted},
			"0 of",
		},
		"a prefix where the path alone was asked for": {
			inForce{Waypoint: true, Fault: exactly(fault(50, 2*time.Second, "/headers"))},
			func(s *sim) { s.actual.Fault.Exact = false },
			map[string]Verdict{"fault-appa": Proven, "fault-exact": Refuted},
			"expected: none",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSim(c.lessons)
			c.change(s)
			report, err := Run(t.Context(), s.env(c.lessons))
			if err != nil {
				t.Fatal(err)
			}
			said := false
			for id, want := range c.want {
				i := slices.IndexFunc(report.Claims, func(r Result) bool { return r.ID == id })
				if i < 0 {
					t.Fatalf("claim %s was not made", id)
				}
				if got := report.Claims[i]; got.Verdict != want {
					t.Errorf("%s: %s, want %s: %+v", id, got.Verdict, want, got.Checks)
				}
				said = said || slices.ContainsFunc(report.Claims[i].Checks,
					func(k Check) bool { return strings.Contains(k.Text, c.says) })
			}
			if !said {
				t.Errorf("no check says %q: %+v", c.says, report.Claims)
			}
		})
	}
}
