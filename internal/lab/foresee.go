package lab

import (
	"context"
	"slices"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// foresee finds out whether the plan is for a cluster that does not exist yet. One that exists and does not answer is
// an error: what it holds, and so what would change, cannot be known.
func (l *Lab) foresee(ctx context.Context) (cluster.Info, error) {
	info, err := l.provider.Inspect(ctx)
	if problem.Is(err, problem.ClusterNone) || (err == nil && info.State == cluster.Absent) {
		why := info.Summary()
		if err != nil {
			why = err.Error()
		}
		l.none = problem.New(problem.ClusterNone, nil, "%s", why)
		l.tell("%s; everything is listed as it would be made, and no API server has judged it", why)
		return info, nil
	}
	if err == nil && !info.Exists {
		return info, problem.New(problem.ClusterUnreachable, nil, "%s", info.Summary())
	}
	return info, err
}

// unmade makes the steps of a plan that look at nodes or processes say that those are not there: a step that finds no
// node to tune would otherwise say that all is well.
func unmade(plan engine.Plan) engine.Plan {
	plan.Steps = slices.Clone(plan.Steps)
	for i, step := range plan.Steps {
		check := step.Check
		if check == nil {
			continue
		}
		plan.Steps[i].Check = func(ctx context.Context) (engine.Status, error) {
			status, err := check(ctx)
			if status.Done || err != nil {
				return engine.Status{Message: "known once there is a cluster"}, nil
			}
			return status, nil
		}
		if preview := step.Preview; preview != nil {
			plan.Steps[i].Preview = func(ctx context.Context) ([]engine.Change, error) {
				changes, err := preview(ctx)
				if problem.Is(err, problem.ClusterNone) {
					return nil, nil
				}
				return changes, err
			}
		}
	}
	return plan
}
