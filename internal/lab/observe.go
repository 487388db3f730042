package lab

import (
	"context"
	"fmt"
	"slices"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// Status prints what is there: provider, nodes, components, lessons. It changes nothing, and exits 0 even where
// something is not ready: a table that says so is what was asked for.
func (l *Lab) Status(ctx context.Context) error {
	if err := l.choose(ctx); err != nil {
		return err
	}
	ctx, cancel := l.deadline(ctx)
	defer cancel()
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	table := ui.Table{Header: []string{"WHAT", "STATE", "DETAIL"}}
	table.Add(info.Provider+" "+info.Name, string(info.State), info.Summary())
	for _, node := range info.Nodes {
		state := "ready"
		if !node.Running {
			state = "not running"
		}
		table.Add("node "+node.Name, state, node.Role+" "+node.InternalIP)
	}
	if !info.Exists {
		if err := table.Write(l.out); err != nil {
			return err
		}
		l.next("next: mage sm:install")
		return nil
	}
	if err := l.adoptRecord(ctx); err != nil {
		return err
	}
	if err := l.seeParts(ctx, info); err != nil {
		return err
	}
	for _, step := range l.engine.Inspect(ctx, l.installPlan()) {
		if step.ID != "cluster" {
			table.Add(step.ID, stateOf(step), reasonOf(step))
		}
	}
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	lessons, err := l.lessons(ctx, client)
	if err != nil {
		return err
	}
	for _, row := range lessons.rows() {
		state, detail := row.state(l.engine.Inspect(ctx, l.planOfLesson(row.name, lessons)))
		table.Add("lesson "+row.name, state, detail)
	}
	if err := table.Write(l.out); err != nil {
		return err
	}
	l.tellSubstitutes(ctx)
	return nil
}

func stateOf(step engine.StepStatus) string {
	switch {
	case step.Err != nil:
		return "unknown"
	case step.Status.Holds:
		return "ready"
	default:
		return "not ready"
	}
}

func reasonOf(step engine.StepStatus) string {
	if step.Err != nil {
		return step.Err.Error()
	}
	return step.Status.Message
}

// planNames lists the targets that have a plan, in the order of the lessons.
var planNames = []string{"install", "apps", "waypoint", "fault", "authz"}

// Plan prints what a target, or every one, would do. With a cluster its API server judges the objects in a dry run;
// without one every step says what it waits for.
func (l *Lab) Plan(ctx context.Context, of string) error {
	names := planNames
	if of != "" {
		if !slices.Contains(planNames, of) {
			return problem.New(problem.SettingInvalid, nil, "-of=%q is not accepted; accepted: %v", of, planNames)
		}
		names = []string{of}
	}
	if err := l.prepare(ctx); err != nil {
		return err
	}
	ctx, cancel := l.deadline(ctx)
	defer cancel()
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return err
	}
	if err := l.seeParts(ctx, info); err != nil {
		return err
	}
	for _, name := range names {
		if name != planNames[0] && len(l.installed.parts) > 0 {
			// The lessons go by what is installed; sm:install itself by what the settings ask for now.
			if err := l.adoptRecord(ctx); err != nil {
				return err
			}
		}
		plan := l.planOf(name)
		previews, err := l.engine.Preview(ctx, plan)
		if err != nil {
			return fmt.Errorf("looking ahead at %s: %w", name, err)
		}
		if err := ui.WritePreviews(l.out, "mage sm:"+name+": "+plan.Title, previews, 120); err != nil {
			return fmt.Errorf("printing the plan of %s: %w", name, err)
		}
	}
	return nil
}

// planOf gives the plan of a target with its default flags.
func (l *Lab) planOf(name string) engine.Plan {
	switch name {
	case "apps":
		return l.appsPlan()
	case "waypoint":
		return l.waypointPlan()
	case "fault":
		return l.faultPlan(DefaultFault())
	case "authz":
		return l.authzPlan(Authz{Allowed: []string{appA, gatewayIdentity}})
	default:
		return l.installPlan()
	}
}

// tellChanges says how much a run changed; nothing is worth saying too.
func (l *Lab) tellChanges(result engine.Result) {
	l.tellLeft(result)
	if changes := len(result.Changes()); changes > 0 {
		l.next("%s: %d changes", result.Plan, changes)
		return
	}
	l.next("%s: nothing to change, everything already was as it should be", result.Plan)
}
