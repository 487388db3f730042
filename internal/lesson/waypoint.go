package lesson

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// Waypoint is sm:waypoint: a waypoint for appb alone, ingress traffic included.
func Waypoint() Lesson {
	return Lesson{
		Name: "waypoint", Needs: []string{"apps"}, Parameters: struct{}{},
		On: names.Waypoint + " before Service appb", Off: names.Waypoint + " before Service appb",
		Data: noData, Plan: waypointPlan, Claims: waypointClaims(),
		InForce: func(s *session.Session) Wait {
			return Wait{"The waypoint is available, bound and configured", mesh.WaypointOn(Target(s))}
		},
		Gone: func(s *session.Session) Wait {
			return Wait{"appb is bound to no waypoint", mesh.WaypointOff(Target(s))}
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
	return s.OverlayStep(id, title, needs, apply.Overlay{Name: id, Object: service})
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
