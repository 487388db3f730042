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

// arrival is a step that is done when the proxies run what was applied, or no longer do.
func (l *Lab) arrival(title string, condition mesh.Condition) engine.Step {
	return engine.Step{
		ID: "arrived", Title: title, Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			m, err := l.mesh(ctx)
			if err != nil {
				return engine.Status{}, err
			}
			met, reason, err := m.Check(ctx, condition)
			return engine.Status{Done: met, Message: reason}, err
		},
		Do: func(ctx context.Context) error {
			m, err := l.mesh(ctx)
			if err != nil {
				return err
			}
			return m.Wait(ctx, condition)
		},
	}
}

func (l *Lab) waypointArrival(off bool) engine.Step {
	if off {
		return l.arrival("appb is bound to no waypoint", mesh.WaypointOff(l.target()))
	}
	return l.arrival("The waypoint is available, bound and configured", mesh.WaypointOn(l.target()))
}

func (l *Lab) faultArrival(fault params.Fault, off bool) engine.Step {
	if off {
		return l.arrival("The waypoint delays nothing", mesh.FaultOff(l.target(), fault))
	}
	return l.arrival("The waypoint runs the delay", mesh.FaultOn(l.target(), names.Delay, fault))
}

// authzArrival waits for the waypoint, and with -strict until Istio has accepted the policy for the node proxies. Without
// it, and with all of it off, it waits until the node proxies no longer know the policy of an earlier -strict.
func (l *Lab) authzArrival(authz params.Authz, off bool) engine.Step {
	t, namespace := l.target(), l.Settings.Namespace
	want := mesh.Policy{Namespace: namespace, Name: names.GetOnly, Principals: authz.Principals(namespace), Methods: []string{"GET"}}
	open := mesh.StrictOff(t, namespace, names.OnlyViaWaypoint)
	switch {
	case off:
		return l.arrival("The waypoint enforces no policy, nor does ztunnel", mesh.All(mesh.AuthzOff(t, namespace, want.Name), open))
	case authz.Strict:
		return l.arrival("The waypoint enforces the policy", mesh.All(mesh.AuthzOn(t, want), mesh.StrictOn(namespace, names.OnlyViaWaypoint)))
	}
	return l.arrival("The waypoint enforces the policy", mesh.All(mesh.AuthzOn(t, want), open))
}
