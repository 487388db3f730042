package lesson

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// The objects of sm:split: its HTTPRoute, the Services of appb's two versions, and the Deployment of the second, which
// has the name of its Service.
const (
	SplitRoute = "appb-split"
	appbV1     = "appb-v1"
	appbV2     = "appb-v2"
)

// DefaultWeight is a first step of a canary release: one request of ten reaches the new version.
const DefaultWeight = 90

// Weight is how the requests to appb are shared between its two versions.
type Weight struct {
	// First is the percentage of the requests that version 1 gets, 1 to 99; version 2 gets the others.
	First int `json:"weight"`
}

// rest is the percentage of the requests that version 2 gets, share the same from 0 to 1.
func (w Weight) rest() int      { return 100 - w.First }
func (w Weight) share() float64 { return float64(w.rest()) / 100 }

// of gives the percentages by the names of the versions' Services.
func (w Weight) of() mesh.Weights { return mesh.Weights{appbV1: w.First, appbV2: w.rest()} }

// validate refuses, with problem.SettingInvalid, a weight that leaves a version without requests.
func (w Weight) validate() error {
	if w.First < 1 || w.First > 99 {
		return problem.New(problem.SettingInvalid, nil, "-weight=%d is not accepted; accepted: 1 to 99", w.First)
	}
	return nil
}

// String describes the split.
func (w Weight) String() string {
	return fmt.Sprintf("%d %% of the requests to version 1 of appb, %d %% to version 2", w.First, w.rest())
}

// Split is sm:split: a second version of appb, which the waypoint sends a share of the requests to. weight is the
// percentage that version 1 keeps.
func Split(weight int) Lesson { return splitOf(Weight{weight}) }

func splitOf(split Weight) Lesson {
	return Lesson{
		Name: "split", Needs: []string{"apps", "waypoint"}, Extra: true, Parameters: split, Invalid: split.validate(),
		Excludes: []Exclusion{{
			"fault", "sm:fault applies a VirtualService for appb and sm:split an HTTPRoute, and what Istio makes of " +
				"both for one Service is undefined",
		}},
		Recorded: fromRecord(splitOf), On: split.String(), Off: "one version of appb", Claims: splitClaims(),
		Data: func(session.Config) map[string]any {
			return map[string]any{"Httpbin": names.HttpbinImage, "Weight": split.First, "Rest": split.rest()}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan {
			return engine.Plan{
				Name: l.Name, Title: split.String(),
				Steps: []engine.Step{
					l.specStep(s, appbV2, "version 2 of appb", "version2.yaml"),
					l.recordedStep(s, "HTTPRoute "+SplitRoute, "route.yaml", appbV2),
				},
			}
		},
		InForce: func(s *session.Session) Wait {
			return Wait{"The waypoint splits the requests", mesh.SplitOn(Target(s), SplitRoute, split.of())}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"The waypoint splits nothing", mesh.SplitOff(Target(s))}
		},
		Remaining: func(o *mesh.Objects) []string {
			var remaining []string
			for _, route := range o.AttachedRoutes() {
				remaining = append(remaining, "httproute "+route.Name)
			}
			return remaining
		},
		Next: typed("mage sm:verify, which measures the share of version 2"), NextOff: offHint("split"),
	}
}

// splitClaims are those of lesson split.
func splitClaims() []probe.Claim {
	shot := func(caller probe.Caller, gather probe.Gather) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.EnoughForPortion,
			Portion: func(l probe.Lessons) float64 { return asked(l).share() },
			Expect:  probe.Expect{Status: http.StatusOK, Route: probe.Through}, Gather: gather,
		}
	}
	weights := []probe.ConfigurationCheck{{
		Name: "weights", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string {
			return "the waypoint sends " + asked(s.Lessons).of().String()
		},
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.Splits(found.Dump, s.Target.Service, asked(s.Lessons).of())
		},
	}}
	noWeights := []probe.ConfigurationCheck{{
		Name: "no split", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string {
			return "the waypoint sends every request to " + s.Target.Service.String()
		},
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.SplitsNothing(found.Dump, s.Target.Service)
		},
	}}
	return []probe.Claim{
		{
			ID: "split-appa", Lesson: "split", Title: "version 2 gets the set share of appa's requests, version 1 " +
				"the others",
			Learn: "The HTTPRoute has Service appb as its parent, so appb's waypoint runs it for every caller in " +
				"the mesh.",
			When: probe.All(probe.On("split"), probe.Admitted(probe.Appa)),
			Shot: shot(probe.Appa, versions), Configuration: weights, Causes: splitCauses(),
		},
		{
			ID: "split-gateway", Lesson: "split",
			Title: "version 2 gets the set share of the gateway's requests, version 1 the others",
			Learn: "The gateway's own HTTPRoute leads to Service appb and knows nothing of the versions.",
			When:  probe.All(probe.On("split"), probe.Admitted(probe.Gateway)),
			Shot:  shot(probe.Gateway, versions), Configuration: weights, Causes: splitCauses(),
		},
		{
			ID: "split-off-appa", Lesson: "split", Title: "with the split off, version 1 gets every request of appa",
			Learn: "A control: the effect of the split is gone with it.", OnRequest: true,
			When: probe.All(probe.Not(probe.On("split")), probe.On("waypoint"), probe.Admitted(probe.Appa)),
			Shot: shot(probe.Appa, oneVersion), Configuration: noWeights, Causes: splitCauses(),
		},
		{
			ID: "split-off-gateway", Lesson: "split",
			Title: "with the split off, version 1 gets every request of the gateway",
			Learn: "A control: the effect of the split is gone with it.", OnRequest: true,
			When: probe.All(probe.Not(probe.On("split")), probe.On("waypoint"), probe.Admitted(probe.Gateway)),
			Shot: shot(probe.Gateway, oneVersion), Configuration: noWeights, Causes: splitCauses(),
		},
	}
}

// asked gives the split that was asked for, or the default one while the lesson is off.
func asked(l probe.Lessons) Weight {
	if split := probe.ParametersOf[Weight](l, "split"); split != nil {
		return *split
	}
	return Weight{DefaultWeight}
}

// splitCauses are why the requests are not shared as they were set, or still are shared.
func splitCauses() []probe.Cause {
	return []probe.Cause{
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			if !l.On("split") {
				return nil
			}
			if found := mesh.RouteTrouble(o.Target.Service, SplitRoute, o.Route(SplitRoute)); found != nil {
				return found
			}
			return mesh.WeightsTrouble(asked(l).of(), o.Route(SplitRoute))
		}},
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			for _, route := range o.AttachedRoutes() {
				if !l.On("split") || route.Name != SplitRoute {
					return problem.New(problem.ConfigNotAttached, nil, "HTTPRoute %s is attached to Service "+
						"%s", route.Name,
						o.Target.Service.Name)
				}
			}
			return nil
		}},
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			for _, v := range o.VirtualServices {
				if l.On("split") && mesh.VirtualServiceTrouble(o.Target.Service, v.Name, v) == nil {
					return problem.New(problem.ConfigNotAttached, nil, "VirtualService %s is for the same host as "+
						"HTTPRoute %s",
						v.Name, SplitRoute)
				}
			}
			return nil
		}, Effect: "What Istio makes of both for one Service is undefined."},
	}
}

// versions wants version 2 to have got the share of a batch that was set, by what appb's pods log themselves.
func versions(ctx context.Context, site probe.Site) (probe.Judge, error) {
	counted, err := countVersions(ctx, site)
	return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
		second, check := counted(ctx, m)
		if check.Verdict != probe.Proven {
			return []probe.Check{check}, nil
		}
		share := stats.Share{Want: asked(site.Lessons).share(), Within: probe.Within, Error: site.Error}
		low, high := stats.Interval(second, m.Sent, site.Error)
		verdict := probe.VerdictOf(share.Counted(second, m.Sent))
		return []probe.Check{check, {Name: "share of version 2", Verdict: verdict, Text: fmt.Sprintf(
			"%d of %d requests (%.1f %%) reached version 2; the true share lies between %.1f %% and %.1f %% "+
				"(wrong with "+
				"probability %g), set: %d %%", second, m.Sent, 100*float64(second)/float64(m.Sent), 100*low, 100*high,
			site.Error, asked(site.Lessons).rest())}}, nil
	}, err
}

// oneVersion wants every request of a batch to have reached version 1.
func oneVersion(ctx context.Context, site probe.Site) (probe.Judge, error) {
	counted, err := countVersions(ctx, site)
	return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
		second, check := counted(ctx, m)
		if check.Verdict == probe.Proven && second > 0 {
			check.Verdict = probe.Refuted
		}
		return []probe.Check{check}, nil
	}, err
}

// versionPatience is how long one more line of the log of appb's pods is waited for.
const versionPatience = 5 * time.Second

// countVersions gives a function that counts how many requests of a batch reached version 2, by the logs of appb's
// pods, which hold each request with its User-Agent. Its check is proven where the logs hold the whole batch.
func countVersions(
	ctx context.Context, site probe.Site,
) (func(context.Context, probe.Measurement) (int, probe.Check), error) {
	started := time.Now()
	pods, err := site.Cluster.Pods(ctx, site.Namespace, "app="+names.AppB)
	if err != nil {
		return nil, fmt.Errorf("listing the pods of appb: %w", err)
	}
	second := map[string]bool{}
	for _, pod := range pods {
		second[pod.Name] = pod.Labels["version"] == "v2"
	}
	return func(ctx context.Context, m probe.Measurement) (int, probe.Check) {
		found, err := observe.CountLines(ctx, site.Cluster, observe.Logs{
			Namespace: site.Namespace, Container: "httpbin", Pods: pods, Since: started, Want: m.Sent,
			Patience: versionPatience,
			Match:    func(line string) bool { return strings.Contains(line, traffic.Agent(site.Run)) },
		})
		check := probe.Check{Name: "logged by appb", Verdict: probe.Inconclusive}
		if err != nil {
			check.Text = err.Error()
			return 0, check
		}
		counts := [2]int{}
		for pod, n := range found {
			if second[pod] {
				counts[1] += n
			} else {
				counts[0] += n
			}
		}
		check.Text = fmt.Sprintf("appb's pods logged %d of the %d requests: version 1 %d, version 2 %d",
			counts[0]+counts[1], m.Sent, counts[0], counts[1])
		if counts[0]+counts[1] == m.Sent {
			check.Verdict = probe.Proven
		}
		return counts[1], check
	}, nil
}
