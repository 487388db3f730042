package lesson

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// Waypoint is sm:waypoint: a waypoint for appb alone, ingress traffic included.
func Waypoint() Lesson {
	return Lesson{
		Name: "waypoint", Needs: []string{"apps"}, Parameters: struct{}{},
		On: names.Waypoint + " before Service appb", Off: names.Waypoint + " before Service appb",
		Data: func(config session.Config) map[string]any {
			return map[string]any{"Namespace": config.Namespace, "IdleTimeout": mesh.IdleTimeout.String()}
		},
		Plan: waypointPlan, Claims: waypointClaims(),
		InForce: func(s *session.Session) Wait {
			return Wait{"The waypoint is available, bound and configured", mesh.WaypointOn(Target(s))}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"appb is bound to no waypoint", mesh.WaypointOff(Target(s))}
		},
		Restarted: func(s *session.Session) Wait {
			return Wait{
				"The waypoint's pods are ready, and the gateway counts them as ready",
				mesh.WaypointSeen(Target(s)),
			}
		},
		Missing: func(by string) *problem.Problem {
			return problem.New(problem.WaypointOff, nil,
				"sm:%s works at the waypoint, and sm:waypoint is off; nothing was changed", by)
		},
		Lost: func(ctx context.Context, s *session.Session, by string) (*problem.Problem, error) {
			gateway, err := s.Gateway(ctx, names.Waypoint)
			if err != nil || gateway != nil {
				return nil, err
			}
			return problem.New(problem.WaypointOff, nil,
				"sm:%s works at the waypoint, and Gateway %s does not exist, although sm:waypoint is on; "+
					"nothing was changed", by, names.Waypoint), nil
		},
		Show: func(ctx context.Context, s *session.Session) error {
			return PrintProxies(ctx, s, names.Gateway, names.Waypoint)
		},
		Next: typed("mage sm:fault"), NextOff: offHint("waypoint"),
	}
}

// waypointPlan creates the waypoint before it enrols appb: until a proxy has the waypoint's configuration, traffic goes
// around the waypoint, without an error.
func waypointPlan(l Lesson, s *session.Session) engine.Plan {
	return engine.Plan{Name: l.Name, Title: "A waypoint for appb alone", Steps: []engine.Step{
		upstreamEnvoyStep(s, "upstream-envoy"),
		l.specStep(s, "connections", "Idle connections from the gateway to appb are closed", "connections.yaml"),
		l.recordedStep(s, "Gateway "+names.Waypoint, "gateway.yaml", "upstream-envoy"),
		enrolStep(s, "enrol", "waypoint"),
	}}
}

// enrolStep labels Service appb, which belongs to sm:apps: only the two labels are this lesson's.
func enrolStep(s *session.Session, id string, needs ...string) engine.Step {
	const title = "Service appb and its ingress traffic through the waypoint"
	list, err := specs.Objects("lessons/waypoint/service.yaml", nil)
	if err != nil {
		return engine.Step{
			ID: id, Title: title, Needs: needs,
			Check: func(context.Context) (engine.Status, error) { return engine.Status{}, err },
		}
	}
	service := list[0]
	service.SetNamespace(s.Config.Namespace)
	return s.OverlayStep(id, title, needs, apply.Overlay{Name: id, Object: service, Exclusive: true})
}

// upstreamEnvoyStep applies the EnvoyFilter that the waypoint needs where the bundle's proxy is upstream Envoy. With
// Istio's own proxy its set is empty, which removes the EnvoyFilter of an earlier installation with a substitute.
func upstreamEnvoyStep(s *session.Session, id string) engine.Step {
	return s.SetStep(id, "Waypoint configuration for the proxy in use", nil,
		func(ctx context.Context) ([]*unstructured.Unstructured, error) {
			substitutes, err := s.Substitutes(ctx)
			if err != nil || substitutes.Proxy() == "" {
				return nil, err
			}
			return specs.Objects("lessons/waypoint/upstream-envoy.yaml", nil)
		})
}

// waypointClaims are those of lesson waypoint.
func waypointClaims() []probe.Claim {
	handled := probe.ConfigurationCheck{
		Name: "waypoint's listener", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string { return "the waypoint handles " + s.Target.Service.String() },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.HandlesService(found.Dump, s.Target.Service)
		},
	}
	straight := func(service func(probe.Scene) mesh.Service) probe.ConfigurationCheck {
		return probe.ConfigurationCheck{
			Name: "gateway's endpoints", Of: probe.GatewayProxy,
			Expect: func(s probe.Scene) string {
				return "the gateway's endpoints for " + service(s).Name + " are its pods"
			},
			Met: func(s probe.Scene, found probe.Configured) (bool, string) {
				return mesh.SendsToPods(found.Dump, service(s))
			},
		}
	}
	appa := func(s probe.Scene) mesh.Service {
		return mesh.Service{Namespace: s.Target.Service.Namespace, Name: names.AppA, Port: names.AppPort}
	}
	appb := func(s probe.Scene) mesh.Service { return s.Target.Service }
	return []probe.Claim{
		{
			ID: "waypoint-appa", Lesson: "waypoint",
			Title: "appa's requests go through the waypoint, which identifies appa",
			Learn: "ztunnel sends what is addressed to appb's Service to the waypoint and proves the " +
				"caller's identity with mutual TLS.",
			When: probe.All(probe.On("waypoint"), probe.Admitted(probe.Appa)),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath,
				Count: probe.Several, Expect: probe.Expect{Status: http.StatusOK, Route: probe.Through},
			},
			Configuration: []probe.ConfigurationCheck{handled},
		},
		{
			ID: "waypoint-gateway", Lesson: "waypoint",
			Title: "the gateway's requests go through the waypoint, which identifies the gateway",
			Learn: "Only because the Service has the label istio.io/ingress-use-waypoint; " +
				"without it the gateway goes straight to the pod.",
			When: probe.All(probe.On("waypoint"), probe.Admitted(probe.Gateway)),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several,
				Expect: probe.Expect{Status: http.StatusOK, Route: probe.Through},
			},
			Configuration: []probe.ConfigurationCheck{handled, {
				Name: "gateway's endpoints", Of: probe.GatewayProxy,
				Expect: func(probe.Scene) string { return "the gateway's endpoints for appb are the waypoint" },
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					return mesh.SendsToWaypoint(found.Dump, s.Target.Service, s.WaypointAddresses)
				},
			}},
		},
		{
			ID: "waypoint-appb-only", Lesson: "waypoint", Title: "appa is not behind the waypoint",
			Learn: "Only the Service that has the label is behind the waypoint, not its namespace.",
			When:  probe.On("waypoint"),
			Configuration: []probe.ConfigurationCheck{
				{
					Name: "waypoint lacks appa", Of: probe.WaypointProxy,
					Expect: func(s probe.Scene) string { return "the waypoint has nothing for " + appa(s).String() },
					Met: func(s probe.Scene, found probe.Configured) (bool, string) {
						return mesh.HandlesNothingFor(found.Dump, appa(s))
					},
				},
				straight(appa),
			},
		},
		{
			ID: "waypoint-off", Lesson: "waypoint", Title: "with the lesson off, appa's requests go straight to appb",
			Learn: "A control: the effect of the waypoint is gone with it.",
			When:  probe.All(probe.Not(probe.On("waypoint")), probe.Admitted(probe.Appa)),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several,
				Expect: probe.Expect{Status: http.StatusOK, Route: probe.Around},
			},
		},
		{
			ID: "waypoint-off-gateway", Lesson: "waypoint",
			Title: "with the lesson off, the gateway's requests go straight to appb",
			Learn: "A control: the effect of the waypoint is gone with it.",
			When:  probe.All(probe.Not(probe.On("waypoint")), probe.Admitted(probe.Gateway)),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath,
				Count: probe.Several, Expect: probe.Expect{Status: http.StatusOK, Route: probe.Around},
			},
			Configuration: []probe.ConfigurationCheck{straight(appb)},
		},
	}
}
