package lab

import (
	"context"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/engine"
	"ambientlab/internal/mesh"
)

// target is what the lessons work on, for the proxies that are asked whether a lesson has arrived.
func (l *Lab) target() mesh.Target {
	return mesh.Target{
		Service:  mesh.Service{Namespace: l.Settings.Namespace, Name: names.AppB, Port: 8000},
		Waypoint: names.Waypoint,
		Gateway:  names.Gateway,
	}
}

// mesh asks the proxies of the lab's cluster, or where pods run none, istiod in their place.
func (l *Lab) mesh(ctx context.Context) (*mesh.Mesh, error) {
	client, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	return mesh.New(client.Config(), l.meshOptions()...)
}

// arrival is a step that holds when the proxies run what was applied. wait is called when a first look says that
// they do not.
func (l *Lab) arrival(title string, look func(context.Context, *mesh.Mesh) (bool, string, error), wait func(context.Context, *mesh.Mesh) error) engine.Step {
	return engine.Step{
		ID: "arrived", Title: title, Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			m, err := l.mesh(ctx)
			if err != nil {
				return engine.Status{}, err
			}
			held, reason, err := look(ctx, m)
			return engine.Status{Done: held && err == nil, Message: reason}, err
		},
		Do: func(ctx context.Context) error {
			m, err := l.mesh(ctx)
			if err != nil {
				return err
			}
			return wait(ctx, m)
		},
	}
}

func (l *Lab) waypointArrival(off bool) engine.Step {
	t := l.target()
	if off {
		return l.arrival("appb is bound to no waypoint",
			func(ctx context.Context, m *mesh.Mesh) (bool, string, error) { return m.WaypointOff(ctx, t) },
			func(ctx context.Context, m *mesh.Mesh) error { return m.WaitWaypointOff(ctx, t) })
	}
	return l.arrival("The waypoint is available, bound and configured",
		func(ctx context.Context, m *mesh.Mesh) (bool, string, error) { return m.Waypoint(ctx, t) },
		func(ctx context.Context, m *mesh.Mesh) error { return m.WaitWaypoint(ctx, t) })
}

func (l *Lab) faultArrival(fault params.Fault, off bool) engine.Step {
	t := l.target()
	if off {
		return l.arrival("The waypoint delays nothing",
			func(ctx context.Context, m *mesh.Mesh) (bool, string, error) { return m.FaultOff(ctx, t, fault.Path) },
			func(ctx context.Context, m *mesh.Mesh) error { return m.WaitFaultOff(ctx, t, fault.Path) })
	}
	return l.arrival("The waypoint runs the delay",
		func(ctx context.Context, m *mesh.Mesh) (bool, string, error) { return m.Fault(ctx, t, fault) },
		func(ctx context.Context, m *mesh.Mesh) error { return m.WaitFault(ctx, t, "appb-delay", fault) })
}

// authzArrival waits for the waypoint, and with -strict until Istio has accepted the policy for the node proxies. Without
// it, and with all of it off, it waits until the node proxies have forgotten what an earlier -strict made them enforce.
func (l *Lab) authzArrival(authz params.Authz, off bool) engine.Step {
	t := l.target()
	want := mesh.Policy{Namespace: l.Settings.Namespace, Name: names.GetOnly, Principals: authz.Principals(l.Settings.Namespace), Methods: []string{"GET"}}
	looks := []func(context.Context, *mesh.Mesh) (bool, string, error){
		func(ctx context.Context, m *mesh.Mesh) (bool, string, error) { return m.Authz(ctx, t, want) },
		func(ctx context.Context, m *mesh.Mesh) (bool, string, error) {
			return m.StrictOff(ctx, t, want.Namespace, names.OnlyViaWaypoint)
		},
	}
	waits := []func(context.Context, *mesh.Mesh) error{
		func(ctx context.Context, m *mesh.Mesh) error { return m.WaitAuthz(ctx, t, want) },
		func(ctx context.Context, m *mesh.Mesh) error {
			return m.WaitStrictOff(ctx, t, want.Namespace, names.OnlyViaWaypoint)
		},
	}
	title := "The waypoint enforces the policy"
	switch {
	case off:
		title = "The waypoint enforces no policy, nor does ztunnel"
		looks[0] = func(ctx context.Context, m *mesh.Mesh) (bool, string, error) {
			return m.AuthzOff(ctx, t, want.Namespace, want.Name)
		}
		waits[0] = func(ctx context.Context, m *mesh.Mesh) error {
			return m.WaitAuthzOff(ctx, t, want.Namespace, want.Name)
		}
	case authz.Strict:
		looks[1] = func(ctx context.Context, m *mesh.Mesh) (bool, string, error) {
			return m.Strict(ctx, want.Namespace, names.OnlyViaWaypoint)
		}
		waits[1] = func(ctx context.Context, m *mesh.Mesh) error {
			return m.WaitStrict(ctx, want.Namespace, names.OnlyViaWaypoint)
		}
	}
	return l.arrival(title,
		func(ctx context.Context, m *mesh.Mesh) (held bool, reason string, err error) {
			for _, look := range looks {
				if held, reason, err = look(ctx, m); !held || err != nil {
					break
				}
			}
			return held, reason, err
		},
		func(ctx context.Context, m *mesh.Mesh) error {
			for _, wait := range waits {
				if err := wait(ctx, m); err != nil {
					return err
				}
			}
			return nil
		})
}
