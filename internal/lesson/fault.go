package lesson

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// Fault is sm:fault: the waypoint delays a share of the requests.
func Fault(fault params.Fault) Lesson {
	detail := fmt.Sprintf("%v %% of %s delayed by %s", fault.Percent, fault.Paths(), fault.Delay)
	return Lesson{
		Name: "fault", Needs: []string{"apps", "waypoint"}, Parameters: fault, Invalid: fault.Validate(),
		Recorded: fromRecord(Fault), On: detail, Off: "no delay", Claims: faultClaims(),
		Data: func(config session.Config) map[string]any {
			return map[string]any{
				"Namespace": config.Namespace, "Percent": fault.Percent, "Delay": fault.Delay.String(),
				"Path": fault.Path, "Exact": fault.Exact,
			}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan {
			return engine.Plan{
				Name: l.Name, Title: detail,
				Steps: []engine.Step{l.recordedStep(s, "VirtualService "+names.Delay, "delay.yaml")},
			}
		},
		InForce: func(s *session.Session) Wait {
			return Wait{"The waypoint runs the delay", mesh.FaultOn(Target(s), names.Delay, fault)}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"The waypoint delays nothing", mesh.FaultOff(Target(s), fault)}
		},
		Remaining: func(o *mesh.Objects) []string {
			var remaining []string
			for _, v := range o.VirtualServices {
				delays := slices.ContainsFunc(v.Spec.GetHttp(),
					func(r *networkingapi.HTTPRoute) bool { return r.GetFault().GetDelay() != nil })
				if delays && mesh.VirtualServiceTrouble(o.Target.Service, v.Name, v) == nil {
					remaining = append(remaining, "virtualservice "+v.Name)
				}
			}
			return remaining
		},
		Effect: func(ctx context.Context, env probe.Env, began time.Time, off bool) string {
			return firstEffect(ctx, env, began, fault, off)
		},
		Next: func(s *session.Session) string {
			if !s.Info.Packets {
				return "mage sm:proxyConfig -of=waypoint to see it, then mage sm:authz"
			}
			return "mage sm:traffic to see it, then mage sm:authz"
		},
		NextOff: offHint("fault"),
	}
}

// effectPatience is how long firstEffect sends requests, besides one delay. It begins while the lesson is applied.
const effectPatience = 3 * time.Minute

// firstEffect says when a caller first noticed that the delay is on, or gone. It does not fail the target: where the
// effect was not seen, it says so.
func firstEffect(ctx context.Context, env probe.Env, began time.Time, fault params.Fault, off bool) string {
	if !env.Lessons.On("waypoint") {
		return ""
	}
	who := probe.Appa
	if !probe.Admitted(who)(env.Lessons) {
		who = probe.Gateway
	}
	ctx, cancel := context.WithTimeout(ctx, effectPatience+fault.Delay)
	defer cancel()
	look, what := probe.FirstDelayed, "the first delayed response"
	if off {
		look, what = probe.NoneDelayed, "only undelayed responses"
	}
	seen, err := look(ctx, env, who, fault)
	if err != nil {
		return fmt.Sprintf("%s from %s: not seen (%v)", what, who, err)
	}
	return fmt.Sprintf("%s from %s: %s after the target began, %d requests later", what, who,
		time.Since(began).Round(10*time.Millisecond), seen.Requests)
}

// faultClaims are those of lesson fault. What appb itself answers on the delayed path, and how long it takes for that,
// is no part of them.
func faultClaims() []probe.Claim {
	prompt := func(caller probe.Caller, count int) []probe.Shot {
		return []probe.Shot{
			{
				Caller: caller, Method: http.MethodGet, Path: probe.OtherPath, Count: count,
				Expect: probe.Expect{Status: http.StatusOK, Prompt: true},
			},
		}
	}
	share := func(caller probe.Caller, path string) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: path, Count: probe.EnoughForShare,
			Expect: probe.Expect{Status: probe.OwnStatus, Route: probe.Through, Share: true},
		}
	}
	none := func(caller probe.Caller) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: probe.FaultPath, Count: probe.EnoughForNone,
			Expect: probe.Expect{Status: http.StatusOK, Prompt: true},
		}
	}
	delayed := probe.ConfigurationCheck{
		Name: "delay", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string { return "the waypoint delays " + s.Fault().String() },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.Delays(found.Dump, s.Target.Service, *s.Fault())
		},
	}
	otherPaths := probe.ConfigurationCheck{
		Name: "other paths", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string { return "the waypoint does not delay " + s.Fault().OtherPath() },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			other := s.Fault().OtherPath()
			if s.Fault().Covers(other) {
				return true, "" // every path is delayed
			}
			return mesh.DelaysNone(found.Dump, s.Target.Service, other)
		},
	}
	noDelay := func(of probe.Source) probe.ConfigurationCheck {
		return probe.ConfigurationCheck{
			Name: "no delay", Of: of,
			Expect: func(probe.Scene) string { return "the proxy of Gateway " + string(of) + " delays nothing" },
			Met: func(_ probe.Scene, found probe.Configured) (bool, string) {
				return mesh.DelaysNothing(found.Dump)
			},
		}
	}
	causes := []probe.Cause{
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			if !l.On("fault") {
				return nil
			}
			return mesh.VirtualServiceTrouble(o.Target.Service, names.Delay, o.VirtualService(names.Delay))
		}, Effect: "The waypoint takes only VirtualServices for the host that it serves."},
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			return mesh.DelayTrouble(l.Fault(), o.VirtualService(names.Delay))
		}},
	}
	return []probe.Claim{
		{
			ID: "fault-appa", Lesson: "fault",
			Title:    "the set share of appa's requests is delayed, by the set time, and no other path",
			Learn:    "The waypoint runs the VirtualService; its fault filter decides at random for each request.",
			When:     probe.All(probe.On("fault"), probe.Admitted(probe.Appa)),
			Controls: prompt(probe.Appa, probe.EnoughForNone), Shot: share(probe.Appa, probe.FaultPath),
			Configuration: []probe.ConfigurationCheck{delayed, otherPaths}, Causes: causes,
		},
		{
			ID: "fault-gateway", Lesson: "fault",
			Title:    "the set share of the gateway's requests is delayed, once, and no other path",
			Learn:    "The gateway does not run the mesh's VirtualService itself; the delay is the waypoint's alone.",
			When:     probe.All(probe.On("fault"), probe.Admitted(probe.Gateway)),
			Controls: prompt(probe.Gateway, probe.EnoughForNone), Shot: share(probe.Gateway, probe.FaultPath),
			Configuration: []probe.ConfigurationCheck{delayed, otherPaths, noDelay(probe.GatewayProxy)}, Causes: causes,
		},
		{
			ID: "fault-prefix", Lesson: "fault", Title: "a longer path under the prefix is delayed as well",
			Learn: "The VirtualService matches a prefix. appb has no such path and answers 404, " +
				"which is delayed all the same.",
			When:     probe.All(probe.On("fault"), probe.Not(exact), probe.Admitted(probe.Appa)),
			Controls: prompt(probe.Appa, probe.Several), Shot: share(probe.Appa, probe.LongerPath),
			Configuration: []probe.ConfigurationCheck{delayed}, Causes: causes,
		},
		{
			ID: "fault-exact", Lesson: "fault", Title: "a longer path is not delayed",
			Learn: "With -exact the VirtualService matches one path alone.",
			When:  probe.All(probe.On("fault"), exact, probe.Admitted(probe.Appa)),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.LongerPath,
				Count:  probe.EnoughForNone,
				Expect: probe.Expect{Status: probe.OwnStatus, Route: probe.Through, Prompt: true},
			},
			Configuration: []probe.ConfigurationCheck{delayed}, Causes: causes,
		},
		{
			ID: "fault-off-appa", Lesson: "fault", Title: "with the fault off, none of appa's requests is delayed",
			Learn: "A control: the effect of the fault is gone with it.",
			When:  probe.All(probe.Not(probe.On("fault")), probe.Admitted(probe.Appa)),
			Shot:  none(probe.Appa), Configuration: []probe.ConfigurationCheck{noDelay(probe.WaypointProxy)},
			Causes: causes,
		},
		{
			ID: "fault-off-gateway", Lesson: "fault",
			Title:         "with the fault off, no request through the gateway is delayed",
			Learn:         "A control: the effect of the fault is gone with it.",
			When:          probe.All(probe.Not(probe.On("fault")), probe.Admitted(probe.Gateway)),
			Shot:          none(probe.Gateway),
			Configuration: []probe.ConfigurationCheck{noDelay(probe.WaypointProxy), noDelay(probe.GatewayProxy)},
			Causes:        causes,
		},
	}
}

func exact(l probe.Lessons) bool {
	fault := l.Fault()
	return fault != nil && fault.Exact
}
