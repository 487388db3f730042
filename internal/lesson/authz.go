package lesson

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/traffic"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// Authz is sm:authz: only appa and the gateway may GET from appb. without lists those of them that may not; strict also
// closes the ways around the waypoint.
func Authz(without string, strict bool) Lesson {
	authz, err := params.NewAuthz(without, strict)
	lesson := authzOf(authz)
	lesson.Invalid = err
	return lesson
}

func authzOf(authz params.Authz) Lesson {
	return Lesson{
		Name: "authz", Needs: []string{"apps", "waypoint"}, Parameters: authz,
		Recorded: fromRecord(authzOf), On: describeAuthz(authz), Off: "every caller may ask appb",
		Claims: authzClaims(),
		Data: func(config session.Config) map[string]any {
			return map[string]any{
				"Principals": authz.Principals(config.TrustDomain, config.Namespace),
				"Waypoint":   names.Principal(config.TrustDomain, config.Namespace, names.Waypoint),
			}
		},
		Plan: func(l Lesson, s *session.Session) engine.Plan { return authzPlan(l, s, authz) },
		InForce: func(s *session.Session) Wait {
			namespace := s.Config.Namespace
			want := mesh.Policy{
				Namespace: namespace, Name: names.GetOnly,
				Principals: authz.Principals(s.Config.TrustDomain, namespace), Methods: []string{"GET"},
			}
			around := mesh.StrictOff(Target(s), namespace, names.OnlyViaWaypoint) // also that of an earlier -strict
			if authz.Strict {
				around = mesh.StrictOn(namespace, names.OnlyViaWaypoint)
			}
			return Wait{"The waypoint enforces the policy", mesh.All(mesh.AuthzOn(Target(s), want), around)}
		},
		Gone: func(s *session.Session) Wait {
			namespace := s.Config.Namespace
			return Wait{"The waypoint enforces no policy, nor does ztunnel", mesh.All(
				mesh.AuthzOff(Target(s), namespace, names.GetOnly),
				mesh.StrictOff(Target(s), namespace, names.OnlyViaWaypoint),
			)}
		},
		Remaining: named(names.GetOnly, names.OnlyViaWaypoint),
		Next:      typed("mage sm:verify"), NextOff: offHint("authz"),
	}
}

func describeAuthz(authz params.Authz) string {
	text := "GET by " + strings.Join(authz.Allowed, " and ")
	if len(authz.Allowed) == 0 {
		text = "no caller may ask appb"
	}
	if authz.Strict {
		return text + "; only the waypoint reaches the pod"
	}
	return text + "; the pod can be reached around the waypoint"
}

// authzPlan makes the policies exactly what the flags say: without -strict, the policies of an earlier -strict are
// removed.
func authzPlan(l Lesson, s *session.Session, authz params.Authz) engine.Plan {
	title := "Ways around the waypoint: open"
	if authz.Strict {
		title = "Ways around the waypoint: closed"
	}
	return engine.Plan{
		Name: l.Name, Title: whoMayGet(authz.Allowed),
		Steps: []engine.Step{
			l.recordedStep(s, "AuthorizationPolicy "+names.GetOnly, "get-only.yaml"),
			s.SetStep("strict", title, nil, func(context.Context) ([]*unstructured.Unstructured, error) {
				if !authz.Strict {
					return nil, nil
				}
				return specs.Objects("lessons/authz/strict.yaml", l.Data(s.Config))
			}),
		},
	}
}

func whoMayGet(allowed []string) string {
	if len(allowed) == 0 {
		return "Neither appa nor the gateway may GET from appb"
	}
	return "Only " + strings.Join(allowed, " and ") + " may GET from appb"
}

// authzClaims are those of lesson authz: who is let in, and which ways lead around the waypoint.
func authzClaims() []probe.Claim {
	get := func(caller probe.Caller, expect probe.Expect) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several,
			Expect: expect,
		}
	}
	post := func(caller probe.Caller, expect probe.Expect) probe.Shot {
		return probe.Shot{Caller: caller, Method: http.MethodPost, Path: "/post", Count: probe.Several, Expect: expect}
	}
	around := func(caller probe.Caller, status int) probe.Shot {
		return probe.Shot{
			Caller: caller, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Few,
			Expect: probe.Expect{Status: status, Route: probe.Around},
		}
	}
	allowed := probe.Expect{Status: http.StatusOK, Route: probe.Through}
	// denied is what the waypoint does with a request that its policy does not allow.
	denied := probe.Expect{
		Status: http.StatusForbidden, Body: traffic.DeniedBody, Route: probe.Through, Prompt: true,
		Counted: true,
	}
	policy := probe.ConfigurationCheck{
		Name: "policy", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string {
			return fmt.Sprintf("the policy allows %s from %s and nothing else", strings.Join(s.Policy.Methods, ", "),
				orNone(s.Policy.Principals))
		},
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.Enforces(found.Dump, s.Target.Service, s.Policy)
		},
	}
	alone := probe.ConfigurationCheck{
		Name: "no other policy", Of: probe.WaypointProxy,
		Expect: func(probe.Scene) string { return "no other policy allows anything" },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.EnforcesNoOther(found.Dump, s.Target.Service, s.Policy.Namespace, s.Policy.Name)
		},
	}
	atOnce := probe.ConfigurationCheck{
		Name: "order of filters", Of: probe.WaypointProxy,
		Expect: func(probe.Scene) string { return "the RBAC filter comes before the fault filter" },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.AuthzBeforeFault(found.Dump, s.Target.Service)
		},
	}
	noPolicy := probe.ConfigurationCheck{
		Name: "no policy", Of: probe.WaypointProxy,
		Expect: func(probe.Scene) string { return "no RBAC rules of " + names.GetOnly },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.DoesNotEnforce(found.Dump, s.Target.Service, s.Policy.Namespace, s.Policy.Name)
		},
	}
	lets := []probe.ConfigurationCheck{policy}
	denies := []probe.ConfigurationCheck{policy, alone}
	without := func(caller probe.Caller, id, title string) probe.Claim {
		return probe.Claim{
			ID: id, Lesson: "authz", Title: title,
			Learn: "The same caller, the same request: only the policy has changed.",
			When:  probe.All(probe.On("authz"), probe.Not(probe.Admitted(caller))),
			Shot:  get(caller, denied), Configuration: denies, Causes: policyCauses(),
		}
	}
	return []probe.Claim{
		{
			ID: "authz-get-appa", Lesson: "authz", Title: "appa may GET",
			Learn: "The policy is attached to the Service with targetRefs, " +
				"so the waypoint enforces it and sees methods and paths.",
			When: probe.All(probe.On("authz"), probe.Admitted(probe.Appa)),
			Shot: get(probe.Appa, allowed), Configuration: lets, Causes: policyCauses(),
		},
		{
			ID: "authz-get-gateway", Lesson: "authz", Title: "the gateway may GET",
			Learn: "The gateway's identity is one of those that the policy allows.",
			When:  probe.All(probe.On("authz"), probe.Admitted(probe.Gateway)),
			Shot:  get(probe.Gateway, allowed), Configuration: lets, Causes: policyCauses(),
		},
		{
			ID: "authz-post-appa", Lesson: "authz", Title: "appa may not POST, and is told so at once",
			Learn: "The policy's filter comes before the fault's: a request that is denied is never delayed.",
			When:  probe.All(probe.On("authz"), probe.Admitted(probe.Appa)),
			Controls: []probe.Shot{
				{
					Caller: probe.Appa, Method: http.MethodPost, Path: probe.FaultPath, Count: probe.EnoughForNone,
					Expect: denied,
				},
			},
			Shot: post(probe.Appa, denied), Configuration: []probe.ConfigurationCheck{policy, alone, atOnce},
			Causes: policyCauses(),
		},
		{
			ID: "authz-post-gateway", Lesson: "authz", Title: "the gateway may not POST, and is told so at once",
			Learn: "The same rule applies to what comes from outside.",
			When:  probe.All(probe.On("authz"), probe.Admitted(probe.Gateway)),
			Shot:  post(probe.Gateway, denied), Configuration: []probe.ConfigurationCheck{policy, alone, atOnce},
			Causes: policyCauses(),
		},
		{
			ID: "authz-outsider", Lesson: "authz", Title: "another service account may not even GET",
			Learn: "An ALLOW policy allows what it names, and denies everything else.",
			When:  probe.All(probe.On("authz"), probe.Not(probe.Admitted(probe.Outsider))),
			Shot:  get(probe.Outsider, denied), Configuration: denies, Causes: policyCauses(),
		},
		without(probe.Appa, "authz-taken-out-appa", "appa, taken out of the policy, may not GET any more"),
		without(probe.Gateway, "authz-taken-out-gateway", "the gateway, taken out of the policy, may not GET any more"),
		{
			ID: "authz-off-post", Lesson: "authz", Title: "with the policy off, appa may POST",
			Learn:         "A control: the effect of the policy is gone with it.",
			When:          probe.All(probe.Not(probe.On("authz")), probe.Admitted(probe.Appa)),
			Shot:          post(probe.Appa, probe.Expect{Status: http.StatusOK}),
			Configuration: []probe.ConfigurationCheck{noPolicy}, Causes: policyCauses(),
		},
		{
			ID: "authz-off-outsider", Lesson: "authz", Title: "with the policy off, another service account may GET",
			Learn:         "A control: nothing but the policy keeps the outsider out.",
			When:          probe.Not(probe.On("authz")),
			Shot:          get(probe.Outsider, probe.Expect{Status: http.StatusOK}),
			Configuration: []probe.ConfigurationCheck{noPolicy}, Causes: policyCauses(),
		},
		{
			ID: "direct-open", Lesson: "authz", Title: "the way around the waypoint is open: straight to appb's pod",
			Learn: "What is addressed to a pod's own address does not go through the waypoint, " +
				"so no layer-7 rule applies to it. `mage sm:authz -strict` closes this way.",
			When: probe.All(probe.Not(probe.Strict), probe.Not(probe.On("l4"))),
			Shot: around(probe.AppaDirect, http.StatusOK), Causes: openCauses(),
		},
		{
			ID: "direct-closed", Lesson: "authz",
			Title: "the way around the waypoint is closed: straight to appb's pod",
			Learn: "ztunnel at appb's pod accepts connections from the waypoint alone and resets every other; " +
				"there is no HTTP answer.",
			When: probe.Strict,
			Shot: around(probe.AppaDirect, traffic.NoAnswer),
			Configuration: []probe.ConfigurationCheck{
				{
					Name: "accepted for ztunnel", Of: probe.IstioObjects,
					Expect: func(probe.Scene) string {
						return "AuthorizationPolicy " + names.OnlyViaWaypoint + " has condition " + mesh.ZtunnelAccepted
					},
					Met: func(s probe.Scene, found probe.Configured) (bool, string) {
						return none(mesh.PolicyTrouble(s.Policy.Namespace, names.OnlyViaWaypoint,
							found.Objects.Policy(names.OnlyViaWaypoint), mesh.ZtunnelAccepted))
					},
				},
				{
					Name: "only the waypoint", Of: probe.IstioObjects,
					Expect: func(s probe.Scene) string { return "the policy denies all but " + s.WaypointPrincipal },
					Met: func(s probe.Scene, found probe.Configured) (bool, string) {
						return none(mesh.DeniesAllBut(s.WaypointPrincipal, names.AppB,
							found.Objects.Policy(names.OnlyViaWaypoint)))
					},
				},
			},
			Causes: strictCauses(),
		},
		{
			ID: "unmeshed-open", Lesson: "authz", Title: "a pod outside the mesh reaches appb in plain text",
			Learn: "It has no ztunnel, so it has no identity and uses no waypoint. `mage sm:authz -strict` closes " +
				"this way, too.",
			When: probe.Not(probe.Strict),
			Shot: around(probe.Unmeshed, http.StatusOK), Causes: openCauses(L4Policy),
		},
		{
			ID: "unmeshed-closed", Lesson: "authz", Title: "a pod outside the mesh does not reach appb",
			Learn: "With STRICT mutual TLS, ztunnel at appb's pod resets connections in plain text.",
			When:  probe.Strict,
			Shot:  around(probe.Unmeshed, traffic.NoAnswer),
			Configuration: []probe.ConfigurationCheck{{
				Name: "STRICT", Of: probe.IstioObjects,
				Expect: func(probe.Scene) string { return "a PeerAuthentication asks for STRICT mutual TLS for appb" },
				Met: func(_ probe.Scene, found probe.Configured) (bool, string) {
					return none(mesh.StrictTLSTrouble(names.AppB, found.Objects.PeerAuthentications))
				},
			}},
			Causes: strictCauses(),
		},
	}
}

// policyCauses are why the policy of lesson authz is not enforced, or still is.
func policyCauses() []probe.Cause {
	return []probe.Cause{
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			if !l.On("authz") {
				return nil
			}
			policy := o.Policy(names.GetOnly)
			if found := mesh.PolicyTrouble(o.Target.Service.Namespace, names.GetOnly, policy,
				mesh.WaypointAccepted); found != nil {
				return found
			}
			return mesh.TargetTrouble(o.Target.Service, policy)
		}},
		{Find: func(o *mesh.Objects, l probe.Lessons) *problem.Problem {
			for _, p := range o.AttachedPolicies() {
				switch {
				case !l.On("authz"):
					return problem.New(problem.ConfigNotAttached, nil,
						"AuthorizationPolicy %s is still attached to Service %s", p.Name, o.Target.Service.Name)
				case p.Name != names.GetOnly:
					return problem.New(problem.ConfigNotAttached, nil,
						"another policy is attached to Service %s: AuthorizationPolicy %s", o.Target.Service.Name,
						p.Name)
				}
			}
			return nil
		}},
	}
}

func strictCauses() []probe.Cause {
	return []probe.Cause{
		{Find: func(o *mesh.Objects, _ probe.Lessons) *problem.Problem {
			return mesh.StrictTLSTrouble(names.AppB, o.PeerAuthentications)
		}},
		{Find: func(o *mesh.Objects, _ probe.Lessons) *problem.Problem {
			return mesh.PolicyTrouble(o.Target.Service.Namespace, names.OnlyViaWaypoint,
				o.Policy(names.OnlyViaWaypoint), mesh.ZtunnelAccepted)
		}},
	}
}

// openCauses are why a way around the waypoint is closed although sm:authz -strict is off. Policies that are excepted
// close it for others.
func openCauses(except ...string) []probe.Cause {
	return []probe.Cause{
		{Find: func(o *mesh.Objects, _ probe.Lessons) *problem.Problem {
			if mesh.StrictTLSTrouble(names.AppB, o.PeerAuthentications) != nil {
				return nil
			}
			return problem.New(problem.ConfigNotAttached, nil,
				"a PeerAuthentication asks for STRICT mutual TLS for appb")
		}},
		{Find: func(o *mesh.Objects, _ probe.Lessons) *problem.Problem {
			for _, p := range o.Policies {
				if p.Spec.GetSelector() != nil && !slices.Contains(except, p.Name) &&
					mesh.PolicyTrouble(p.Namespace, p.Name, p, mesh.ZtunnelAccepted) == nil {
					return problem.New(problem.ConfigNotAttached, nil,
						"ztunnel enforces AuthorizationPolicy %s, which has a selector", p.Name)
				}
			}
			return nil
		}},
	}
}

// none turns a trouble into the answer of a check.
func none(trouble *problem.Problem) (bool, string) {
	if trouble == nil {
		return true, ""
	}
	return false, trouble.Seen
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "no identity"
	}
	return strings.Join(slices.Sorted(slices.Values(list)), ", ")
}
