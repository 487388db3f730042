package lab

import (
	"context"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
)

// Delete removes the cluster that the lab created. On an existing cluster it takes the lab's own objects back, the
// lessons first, and leaves everything else as it was.
func (l *Lab) Delete(ctx context.Context) error {
	if err := l.choose(ctx); err != nil {
		return err
	}
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	if l.Settings.Provider == ProviderExisting {
		return l.deleteObjects(ctx)
	}
	if !info.Exists {
		l.next("there is no %s cluster %q: nothing to delete", info.Provider, info.Name)
		l.tellBeside(info)
		return nil
	}
	_, err = l.apply(ctx, engine.Plan{Name: "delete", Title: "Delete " + l.clusterTitle(), Steps: []engine.Step{{
		ID: "delete", Title: l.clusterTitle(), Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			info, err := l.provider.Inspect(ctx)
			return engine.Status{Holds: err == nil && info.State == cluster.Absent, Message: info.Message}, err
		},
		Do: func(ctx context.Context) error {
			if err := l.provider.Delete(ctx); err != nil {
				return err
			}
			engine.Changed(ctx, engine.Change{Object: l.clusterTitle(), Action: engine.Delete})
			return nil
		},
	}}})
	return err
}

func (l *Lab) deleteObjects(ctx context.Context) error {
	if err := l.adoptRecord(ctx); err != nil {
		return err
	}
	for _, plan := range []engine.Plan{
		l.authzPlan(Authz{Strict: true}), l.faultPlan(DefaultFault()), l.waypointPlan(), l.appsPlan(), l.installPlan(),
	} {
		if _, err := l.undo(ctx, plan); err != nil {
			return err
		}
	}
	return nil
}

// All runs the whole lab in order and ends with the proofs.
func (l *Lab) All(ctx context.Context) error {
	l.whole = true
	for _, target := range []func(context.Context) error{
		l.Install,
		func(ctx context.Context) error { return l.Apps(ctx, false) },
		func(ctx context.Context) error { return l.Waypoint(ctx, false) },
		func(ctx context.Context) error { return l.Fault(ctx, DefaultFault(), false) },
		func(ctx context.Context) error { return l.Authz(ctx, AuthzOptions{}, false) },
		func(ctx context.Context) error { return l.Verify(ctx, "") },
		l.Status,
	} {
		if err := target(ctx); err != nil {
			return err
		}
	}
	return nil
}
