package lab

import (
	"context"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Delete removes the cluster that the lab created. On an existing cluster it takes the lab's own objects back, the
// lessons first, and leaves everything else as it was.
func (l *Lab) Delete(ctx context.Context) error {
	if err := l.choose(ctx); err != nil {
		return err
	}
	if err := l.sayWhich(); err != nil {
		return err
	}
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	if l.Settings.Provider == ProviderExisting {
		if err := refuse(info); err != nil {
			return err
		}
		return l.deleteObjects(ctx, info)
	}
	if !info.Exists {
		l.next("there is no %s cluster %q: nothing to delete", info.Provider, info.Name)
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

// deleteObjects takes back what bears the lab's labels, on a cluster without the lab's record too: the record may never
// have been written, or an interrupted sm:delete may already have removed it.
func (l *Lab) deleteObjects(ctx context.Context, info cluster.Info) error {
	if err := l.mustBeInstalled(ctx, info); problem.Is(err, problem.ClusterNone) || problem.Is(err, problem.ObjectOfAnotherLab) {
		l.next("this lab's record is not there: %v; what bears the labels of lab %q is taken back all the same", err, l.Settings.Cluster)
	} else if err != nil {
		return err
	}
	l.Settings.MetalLB = "on" // it may have been when the lab was installed
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
