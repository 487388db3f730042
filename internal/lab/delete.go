package lab

import (
	"context"
	"errors"
	"strings"

	"ambientlab/internal/lesson/params"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/mesh"
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
	info, err := cluster.Find(ctx, l.provider)
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
		l.tell("there is no %s cluster %q: nothing to delete", info.Provider, info.Name)
		l.tellBeside(info)
		l.thenType("mage sm:install makes one")
		return nil
	}
	_, err = l.apply(ctx, engine.Plan{Name: "delete", Title: "Delete " + l.clusterTitle(), Steps: []engine.Step{{
		ID: "delete", Title: l.clusterTitle(), Timeout: patient,
		Check: func(ctx context.Context) (engine.Status, error) {
			info, err := cluster.Find(ctx, l.provider)
			return engine.Status{Done: err == nil && info.State == cluster.Absent, Message: info.Message}, err
		},
		Do: func(ctx context.Context) error {
			if err := l.provider.Delete(ctx); err != nil {
				return err
			}
			engine.Changed(ctx, engine.Change{Object: l.clusterTitle(), Action: engine.Delete})
			return nil
		},
	}}})
	if err == nil {
		l.thenType("mage sm:install makes a new one")
	}
	return err
}

// deleteObjects takes back what is installed, whatever the settings say now: the record and the labels in the cluster
// tell what that is; on a cluster without the record too, which may never have been written, or which an interrupted
// sm:delete may already have removed. Plan by plan first, since only they know what needs what; then what no plan knows
// any more.
func (l *Lab) deleteObjects(ctx context.Context, info cluster.Info) error {
	if err := l.mustBeInstalled(ctx, info); problem.Is(err, problem.ClusterNone) || problem.Is(err, problem.ObjectOfAnotherLab) {
		l.tell("this lab's record is not there: %v; what bears the labels of lab %q is taken back all the same", err, l.Settings.Cluster)
	} else if err != nil {
		return err
	}
	l.removing = true
	if err := l.lookForParts(ctx); err != nil {
		return err
	}
	if err := l.adoptRecord(ctx); err != nil {
		return err
	}
	for _, plan := range []engine.Plan{
		l.authzPlan(params.Authz{Strict: true}), l.faultPlan(params.DefaultFault()), l.waypointPlan(), l.appsPlan(), l.installPlan(),
	} {
		result, err := l.undo(ctx, plan)
		l.tellLeft(result)
		if err != nil {
			return err
		}
	}
	result, err := l.apply(ctx, l.restPlan())
	l.tellLeft(result)
	if err != nil {
		return err
	}
	l.thenType("mage sm:install begins anew; kubectl get all -A shows what is left, which is not the lab's")
	return nil
}

// restPlan deletes what is left after the plans were undone, and the record at the very end: a deletion that was
// interrupted finds in it what it still has to do.
func (l *Lab) restPlan() engine.Plan {
	with := func(do func(context.Context, *apply.Client) error) func(context.Context) error {
		return func(ctx context.Context) error {
			client, err := l.connect(ctx)
			if err != nil {
				return err
			}
			return do(ctx, client)
		}
	}
	return engine.Plan{Name: "delete", Title: "What is left of the lab", Steps: []engine.Step{
		{ID: "rest", Title: "Whatever else bears the lab's labels", Timeout: patient, Do: with(func(ctx context.Context, client *apply.Client) error {
			_, err := client.DeleteAll(ctx, recordPart)
			return err
		})},
		{ID: "by-products", Title: "What istiod left in every namespace", Needs: needs("rest"), Timeout: patient, Do: with(func(ctx context.Context, client *apply.Client) error {
			record, err := l.recordObject(ctx)
			if err != nil || record == nil {
				return err // nothing says that it was the lab's istiod
			}
			return mesh.DeleteGenerated(ctx, client, record.CreationTimestamp.Time)
		})},
		{ID: recordPart, Title: "Record of the installation", Needs: needs("by-products"), Timeout: quick, Do: with(func(ctx context.Context, client *apply.Client) error {
			_, err := client.Delete(ctx, apply.Set{Name: recordPart})
			return err
		})},
	}}
}

// tellLeft says what a run left in the cluster, and why.
func (l *Lab) tellLeft(result engine.Result) {
	for _, change := range result.Changes() {
		if why, left := strings.CutPrefix(change.Detail, apply.LeftInPlace); left {
			l.tell("%s stays: %s", change.Object, why)
		}
	}
}

// All runs the whole lab in order and ends with the proofs.
func (l *Lab) All(ctx context.Context) error {
	l.whole = true
	for _, target := range []func(context.Context) error{
		l.Install,
		func(ctx context.Context) error { return l.Apps(ctx, false) },
		func(ctx context.Context) error { return l.Waypoint(ctx, false) },
		func(ctx context.Context) error { return l.Fault(ctx, params.DefaultFault(), false) },
		func(ctx context.Context) error { return l.Authz(ctx, AuthzOptions{}, false) },
	} {
		if err := target(ctx); err != nil {
			return err
		}
	}
	return closing(ctx, func(ctx context.Context) error {
		err := l.Verify(ctx, "")
		l.whole = err != nil // what to type next is the status's to say, but not where the failure's advice does
		return err
	}, l.Status)
}

// closing ends sm:lab: whatever the proofs say, the status follows, since a claim that does not hold is where one wants
// to see what is not ready. The exit code is that of the proofs first.
func closing(ctx context.Context, verify, status func(context.Context) error) error {
	failed := verify(ctx)
	if ctx.Err() != nil {
		return failed
	}
	return errors.Join(failed, status(ctx))
}
