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
	"ambientlab/internal/probe/traffic"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// L4Policy is the AuthorizationPolicy of sm:l4, which ztunnel enforces.
const L4Policy = "appb-l4"

// Terms are those of the policy that refuses appa's connections to appb's pods.
type Terms struct {
	// HTTP makes it a policy with an HTTP term, which reads as if it allowed appa's GET. ztunnel, which enforces it,
	// sees no requests.
	HTTP bool `json:"http"`
}

// L4 is sm:l4: ztunnel at appb's pod refuses connections from appa, by the identity that mutual TLS proves. http makes
// it a policy with an HTTP term.
func L4(http bool) Lesson { return l4Of(Terms{http}) }

func l4Of(l4 Terms) Lesson {
	on := "ztunnel refuses appa's connections to appb's pod"
	if l4.HTTP {
		on += ", though the policy allows appa's GET: ztunnel cannot judge an HTTP term"
	}
	return Lesson{
		Name: "l4", Needs: []string{"apps"}, Extra: true, Parameters: l4,
		Recorded: fromRecord(l4Of), On: on, Off: "no layer-4 policy for appb's pod", Claims: l4Claims(),
		Data: func(config session.Config) map[string]any {
			return map[string]any{
				"Principal": names.Principal(config.TrustDomain, config.Namespace, names.AppA), "HTTP": l4.HTTP,
			}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan {
			return engine.Plan{
				Name: l.Name, Title: on,
				Steps: []engine.Step{l.recordedStep(s, "AuthorizationPolicy "+L4Policy, "policy.yaml")},
			}
		},
		InForce: func(s *session.Session) Wait {
			return Wait{
				"ztunnel has the policy",
				mesh.All(mesh.StrictOn(s.Config.Namespace, L4Policy), mesh.ZtunnelKnows(Target(s), L4Policy)),
			}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"ztunnel has no such policy", mesh.StrictOff(Target(s), s.Config.Namespace, L4Policy)}
		},
		Remaining: named(L4Policy),
		Show: func(_ context.Context, s *session.Session) error {
			if l4.HTTP {
				s.Tell("the policy reads as if it allowed appa's GET, but ztunnel sees connections and not requests: " +
					"istiod leaves an ALLOW rule with an HTTP term out, so ztunnel refuses every request of appa; " +
					"of a DENY rule with an HTTP term it enforces nothing. HTTP rules belong in a policy " +
					"with targetRefs, as sm:authz has it")
			}
			return nil
		},
		Next: typed("mage sm:verify"), NextOff: offHint("l4"),
	}
}

// l4Claims are those of lesson l4. A denial at the node proxy differs from one at the waypoint: the connection ends
// without an HTTP answer, and the waypoint does not see it.
func l4Claims() []probe.Claim {
	get := func(caller probe.Caller, expect probe.Expect, gather probe.Gather) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several, Expect: expect,
			Gather: gather,
		}
	}
	reset := probe.Expect{Status: traffic.NoAnswer, Route: probe.Around}
	accepted := []probe.ConfigurationCheck{{
		Name: "accepted for ztunnel", Of: probe.IstioObjects,
		Expect: func(probe.Scene) string {
			return "AuthorizationPolicy " + L4Policy + " has condition " + mesh.ZtunnelAccepted
		},
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return none(mesh.PolicyTrouble(s.Policy.Namespace, L4Policy, found.Objects.Policy(L4Policy),
				mesh.ZtunnelAccepted))
		},
	}}
	withoutTerms := probe.ConfigurationCheck{
		Name: "without the rule that has an HTTP term", Of: probe.IstioObjects,
		Expect: func(probe.Scene) string { return "Istio says that ztunnel does not support HTTP attributes" },
		Met: func(_ probe.Scene, found probe.Configured) (bool, string) {
			policy := found.Objects.Policy(L4Policy)
			if policy == nil {
				return false, "there is no policy " + L4Policy
			}
			for _, c := range policy.Status.GetConditions() {
				if strings.Contains(c.GetMessage(), "HTTP attributes") {
					return true, ""
				}
			}
			return false, "no condition of the policy mentions HTTP attributes"
		},
	}
	return []probe.Claim{
		{
			ID: "l4-denied", Lesson: "l4", Title: "appa's connections straight to appb's pod are reset",
			Learn: "ztunnel at the pod judges the identity of the connection. A refusal has no HTTP status and no " +
				"body, unlike " +
				"the waypoint's 403, and the waypoint does not see it.",
			When: probe.All(probe.On("l4"), probe.Not(withHTTP)),
			Shot: get(probe.AppaDirect, reset, deniedByNodeProxy), Configuration: accepted, Causes: l4Causes(),
		},
		{
			ID: "l4-http", Lesson: "l4",
			Title: "an HTTP term is not enforced: the policy allows appa's GET, and it is reset all the same",
			Learn: "ztunnel sees connections, not requests. istiod leaves an ALLOW rule with an HTTP term out, " +
				"so ztunnel refuses more than the policy says.",
			When: withHTTP, Shot: get(probe.AppaDirect, reset, deniedByNodeProxy),
			Configuration: append(accepted, withoutTerms), Causes: l4Causes(),
		},
		{
			ID: "l4-allowed", Lesson: "l4", Title: "another identity reaches appb's pod",
			Learn: "A control: nothing but the identity differs.",
			When:  probe.All(probe.On("l4"), probe.Not(probe.Strict)),
			Shot: get(probe.OutsiderDirect, probe.Expect{Status: http.StatusOK, Route: probe.Around},
				notDeniedByNodeProxy),
			Causes: openCauses(L4Policy),
		},
		{
			ID: "l4-through", Lesson: "l4", Title: "appa's requests through the waypoint are not refused by it",
			Learn: "The waypoint connects to the pod with its own identity. A policy for ztunnel cannot tell who " +
				"asked; " +
				"that is for a policy at the waypoint.",
			When: probe.All(probe.On("l4"), probe.On("waypoint"), probe.Admitted(probe.Appa)),
			Shot: get(probe.Appa, probe.Expect{Status: http.StatusOK, Route: probe.Through}, nil),
		},
		{
			ID: "l4-denied-service", Lesson: "l4", Title: "without a waypoint, appa's requests to appb's Service " +
				"are reset",
			Learn: "With no waypoint before appb, ztunnel at the pod sees appa's own identity.",
			When:  probe.All(probe.On("l4"), probe.Not(probe.On("waypoint"))),
			Shot:  get(probe.Appa, reset, deniedByNodeProxy), Causes: l4Causes(),
		},
		{
			ID: "l4-off", Lesson: "l4", Title: "with the policy off, appa reaches appb's pod", OnRequest: true,
			Learn: "A control: the effect of the policy is gone with it.",
			When:  probe.All(probe.Not(probe.On("l4")), probe.Not(probe.Strict)),
			Shot: get(probe.AppaDirect, probe.Expect{Status: http.StatusOK, Route: probe.Around},
				notDeniedByNodeProxy),
			Causes: openCauses(),
		},
	}
}

// withHTTP is met while the policy has an HTTP term.
func withHTTP(l probe.Lessons) bool {
	asked := probe.ParametersOf[Terms](l, "l4")
	return asked != nil && asked.HTTP
}

// l4Causes are why ztunnel does not refuse appa.
func l4Causes() []probe.Cause {
	return []probe.Cause{{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
		policy := o.Policy(L4Policy)
		if policy != nil && policy.Spec.GetSelector() == nil {
			return problem.New(problem.ConfigNotAttached, nil,
				"AuthorizationPolicy %s has no `selector`: ztunnel enforces policies with one only", L4Policy)
		}
		trouble := mesh.PolicyTrouble(o.Target.Service.Namespace, L4Policy, policy, mesh.ZtunnelAccepted)
		if trouble != nil {
			return trouble
		}
		if withHTTP(l) {
			return nil
		}
		return mesh.DeniesTrouble(names.AppA, policy)
	}}}
}

// nodePatience is how long one more line of a node proxy's log is waited for.
const nodePatience = 3 * time.Second

// denials are what the node proxies say of refused connections from appa.
type denials struct {
	site    probe.Site
	proxies observe.NodeProxies
	before  observe.Connections
	started time.Time
}

func gatherDenials(ctx context.Context, site probe.Site) (denials, error) {
	d := denials{site: site, proxies: observe.Ztunnels(site.Cluster), started: time.Now()}
	var err error
	d.before, err = d.proxies.Connections(ctx)
	return d, err
}

// deniedByNodeProxy wants every request of a batch refused by the node proxy at appb's pod, by its counter and by its
// log.
func deniedByNodeProxy(ctx context.Context, site probe.Site) (probe.Judge, error) {
	d, err := gatherDenials(ctx, site)
	return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
		return []probe.Check{d.counted(ctx, m.Sent, m.Sent), d.logged(ctx, m.Sent)}, nil
	}, err
}

// notDeniedByNodeProxy wants no connection of appa refused meanwhile.
func notDeniedByNodeProxy(ctx context.Context, site probe.Site) (probe.Judge, error) {
	d, err := gatherDenials(ctx, site)
	return func(ctx context.Context, m probe.Measurement) ([]probe.Check, probe.Later) {
		return []probe.Check{d.counted(ctx, m.Sent, 0)}, nil
	}, err
}

// counted compares how many connections the node proxies at the destination counted as denied.
func (d denials) counted(ctx context.Context, sent, want int) probe.Check {
	check := probe.Check{Name: "counted by the node proxy", Verdict: probe.Inconclusive}
	after, err := d.proxies.Connections(ctx)
	if err != nil {
		check.Text = err.Error()
		return check
	}
	of := map[string]string{"reporter": "destination", "response_flags": "DENY"}
	moved := after.Sum(observe.Failed, of) - d.before.Sum(observe.Failed, of)
	check.Text = fmt.Sprintf("%s of the node proxies, reporter destination, flag DENY, moved by %d; %d requests "+
		"were sent, "+
		"%d of them were to be denied", observe.Failed, moved, sent, want)
	switch {
	case moved == want:
		check.Verdict = probe.Proven
	case moved < want:
		check.Verdict = probe.Refuted
	default:
		check.Text += ": other connections were denied, or callers tried again"
	}
	return check
}

// logged looks for a line of the node proxy's log for each request.
func (d denials) logged(ctx context.Context, sent int) probe.Check {
	check := probe.Check{Name: "logged by the node proxy", Verdict: probe.Inconclusive}
	who := "spiffe://" + d.site.Principal(names.AppA)
	found, err := d.proxies.Lines(ctx, d.started, sent, nodePatience, func(line string) bool {
		return strings.Contains(line, "policy rejection") && strings.Contains(line, "inbound") &&
			strings.Contains(line, who) && d.names(line)
	})
	if err != nil {
		check.Text = err.Error()
		return check
	}
	check.Text = fmt.Sprintf("the log of the node proxies holds %d inbound connections of %s that were closed due "+
		"to policy "+
		"rejection", found, who)
	switch {
	case found >= sent:
		check.Verdict = probe.Proven
	case found == 0:
		check.Verdict = probe.Refuted
	default:
		check.Text += fmt.Sprintf("; %d were sent", sent)
	}
	return check
}

// names tells whether a line gives the policy of lesson l4 as the reason. ztunnel names a policy that denies, but none
// where policies that allow exist and none of them allows. Where sm:authz -strict refuses the same connections, its
// policy may be the one that is named.
func (d denials) names(line string) bool {
	switch {
	case probe.Strict(d.site.Lessons) && strings.Contains(line, names.OnlyViaWaypoint):
		return true
	case withHTTP(d.site.Lessons):
		return strings.Contains(line, "none allowed")
	}
	return strings.Contains(line, L4Policy)
}
