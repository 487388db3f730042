package lab

import (
	"context"
	"slices"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// Delete removes the cluster that the lab created. On another cluster it removes the lab's own objects, the lessons
// first, and leaves everything else as it was.
func Delete(ctx context.Context, env *session.Env) error {
	s, err := session.Open(ctx, env, session.OnlyFound)
	if err != nil {
		return err
	}
	if !s.Traits.Owned {
		return deleteObjects(ctx, s)
	}
	if !s.Info.Exists {
		s.Tell("%s does not exist: nothing to delete", s.Traits.Title)
		s.Next("mage sm:install creates it")
		return nil
	}
	if _, err := s.Apply(ctx,
		engine.Plan{
			Name: "delete", Title: "Delete " + s.Traits.Title,
			Steps: []engine.Step{deleteStep(s)},
		}); err != nil {
		return err
	}
	s.Next("mage sm:install creates a new one")
	return nil
}

func deleteStep(s *session.Session) engine.Step {
	return engine.Step{
		ID: "delete", Title: s.Traits.Title, Timeout: s.Settings.StepTimeout(),
		Check: func(ctx context.Context) (engine.Status, error) {
			info, err := cluster.Find(ctx, s.Provider())
			if err != nil || info.State != cluster.Absent {
				return engine.Status{Message: info.Message}, err
			}
			return engine.Status{Done: true, Message: "it does not exist any more"}, nil
		},
		Do: func(ctx context.Context) error {
			if err := s.Provider().Delete(ctx); err != nil {
				return err
			}
			engine.Changed(ctx, engine.Change{Object: s.Traits.Title, Action: engine.Delete})
			return nil
		},
	}
}

// deleteObjects removes what is installed, whatever the settings say now: the record and the labels in the cluster say
// what that is. It also works without the record, which may never have been written, or which an interrupted sm:delete
// may have removed. Plan by plan first, since only the plans know what needs what; then what no plan knows any more.
func deleteObjects(ctx context.Context, s *session.Session) error {
	if err := session.Usable(s.Info); err != nil {
		return err
	}
	if !s.Found.RecordKnown {
		return s.Found.Err
	}
	if err := s.Installed(); problem.Is(err, problem.ClusterNone) || problem.Is(err, problem.ObjectOfAnotherLab) {
		s.Tell("the record of this lab is missing: %v; all objects with the labels of lab %q are removed", err,
			s.Settings.Cluster)
	} else if err != nil {
		return err
	}
	s = s.With(session.AsRecorded)
	var plans []engine.Plan
	for _, l := range slices.Backward(lesson.All()) {
		plans = append(plans, l.PlanToUndo(s))
	}
	for _, plan := range append(plans, installPlan(s, newCharts(s.Env, s.Provider()))) {
		result, err := s.Undo(ctx, plan)
		tellLeft(s, result)
		if err != nil {
			return err
		}
	}
	result, err := s.Apply(ctx, remainderPlan(s))
	tellLeft(s, result)
	if err != nil {
		return err
	}
	s.Next("mage sm:install installs it again; kubectl get all -A shows what is left; none of it is the lab's")
	return nil
}

// remainderPlan deletes what is left after the plans were undone, and the record last: a deletion that was interrupted
// finds in it what it still has to do.
func remainderPlan(s *session.Session) engine.Plan {
	with := func(do func(context.Context, *apply.Client) error) func(context.Context) error {
		return func(ctx context.Context) error {
			client, err := s.Connect(ctx)
			if err != nil {
				return err
			}
			return do(ctx, client)
		}
	}
	return engine.Plan{Name: "delete", Title: "What is left of the lab", Steps: []engine.Step{
		{
			ID: "rest", Title: "Every other object with the lab's labels", Timeout: s.Settings.StepTimeout(),
			Do: with(func(ctx context.Context, client *apply.Client) error {
				_, err := client.DeleteAll(ctx, session.RecordPart)
				return err
			}),
		},
		{
			ID: "by-products", Title: "What istiod created in every namespace", Needs: needs("rest"),
			Timeout: s.Settings.StepTimeout(), Do: with(func(ctx context.Context, client *apply.Client) error {
				if s.Found.Record == nil {
					return nil // nothing says that it was the lab's istiod
				}
				return mesh.DeleteGenerated(ctx, client, s.Found.Record.Created)
			}),
		},
		{
			ID: session.RecordPart, Title: "Record of the installation", Needs: needs("by-products"),
			Timeout: s.Settings.ShortStepTimeout(), Do: with(func(ctx context.Context, client *apply.Client) error {
				_, err := client.Delete(ctx, apply.Set{Name: session.RecordPart})
				return err
			}),
		},
	}}
}
