package lab

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Plan is the target that prints what another one, or every one, would do. Where the cluster exists its API server
// judges the objects in a dry run. Where it does not, every object is listed as one to create. With out, a folder that
// must be empty or not exist, it also writes the commands and the files that they name.
func Plan(of, out string) Target {
	return func(ctx context.Context, env *session.Env) error {
		names := append([]string{"install"}, lesson.Names()...)
		if of != "" && !slices.Contains(names, of) {
			return problem.New(problem.SettingInvalid, nil, "-of=%q is not accepted; accepted: %s", of,
				strings.Join(names, ", "))
		}
		names = previewed(of)
		if err := emptyFolder(out); err != nil {
			return err
		}
		s, err := session.OpenForPreview(ctx, env)
		if err != nil {
			return err
		}
		c := newCharts(env, s.Provider())
		if err := checkBeforeInstall(ctx, s, c); err != nil {
			return err
		}
		ctx, cancel := s.Deadline(ctx)
		defer cancel()
		return preview(ctx, s.OnlyKnown(), c, names, out)
	}
}

// previewed lists the targets that are previewed: one, or sm:install and the lessons of sm:lab.
func previewed(of string) []string {
	if of != "" {
		return []string{of}
	}
	names := []string{"install"}
	for _, l := range lesson.Course() {
		names = append(names, l.Name)
	}
	return names
}

func preview(ctx context.Context, s *session.Session, c *charts, names []string, out string) error {
	if s.Info.State == cluster.Absent {
		s.Tell("%s; every object is listed as one to create, and no API server has judged it", s.Info.Summary())
		s = s.WithoutCluster(s.Info.Summary())
	}
	var plans []engine.Plan
	todo := "" // the first target that would change something
	for _, name := range names {
		plan := planOf(s, c, name)
		if s.NoCluster() {
			plan = previewWithoutCluster(plan)
		}
		plans = append(plans, plan)
		previews, err := s.Preview(ctx, plan)
		if err != nil {
			return fmt.Errorf("previewing %s: %w", name, err)
		}
		if err := ui.WritePreviews(s.Out, "mage sm:"+name+": "+plan.Title, previews, 120); err != nil {
			return fmt.Errorf("printing the plan of %s: %w", name, err)
		}
		if todo == "" && slices.ContainsFunc(previews, func(p engine.Preview) bool { return !p.Status.Done }) {
			todo = name
		}
	}
	if out != "" {
		if err := writeCommands(ctx, s, c, plans, out); err != nil {
			return err
		}
	}
	s.Next("mage sm:%s", cmp.Or(todo, "verify"))
	return nil
}

// planOf gives the plan of a target with its default flags. The lessons go by what is installed, sm:install by what the
// settings ask for.
func planOf(s *session.Session, c *charts, name string) engine.Plan {
	if l, known := lesson.Named(name); known {
		return l.PlanToUndo(s.With(session.AsInstalled))
	}
	return installPlan(s, c)
}

// previewWithoutCluster changes a plan for a cluster that does not exist: a step that looks at nodes or processes is
// not done, even where it finds no node that it would have to change.
func previewWithoutCluster(plan engine.Plan) engine.Plan {
	return plan.Decorate(func(step engine.Step) engine.Step {
		check, preview := step.Check, step.Preview
		if check == nil {
			return step
		}
		step.Check = func(ctx context.Context) (engine.Status, error) {
			status, err := check(ctx)
			if status.Done || err != nil {
				return engine.Status{Message: "known once the cluster exists"}, nil
			}
			return status, nil
		}
		if preview != nil {
			step.Preview = func(ctx context.Context) ([]engine.Change, error) {
				changes, err := preview(ctx)
				if problem.Is(err, problem.ClusterNone) {
					return nil, nil
				}
				return changes, err
			}
		}
		return step
	})
}
