package lab

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ambientlab/internal/cluster"
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
		l.tellBeside(info)
		l.next("next: mage sm:install")
		return nil
	}
	if info.State == cluster.Partial {
		if err := table.Write(l.out); err != nil {
			return err
		}
		l.next("next: mage sm:install, which removes what is there and begins anew")
		return nil
	}
	known := true
	if hurt(info) {
		known = l.answers(ctx, &table)
	}
	if known {
		l.addComponents(ctx, &table)
	}
	if err := table.Write(l.out); err != nil {
		return err
	}
	if hurt(info) {
		l.next("next: mage sm:install, which starts what does not run")
	}
	if known {
		l.tellSubstitutes(ctx)
	}
	return nil
}

// hurt tells whether the cluster itself is not as it should be, so that what is in it may not be had.
func hurt(info cluster.Info) bool {
	return info.State == cluster.Stopped || info.State == cluster.NotReady
}

// hurtLimit bounds the questions to a cluster that is known not to be as it should be.
const hurtLimit = 3 * time.Second

// answers asks a cluster that is hurt whether the rest can be had from it. Where it cannot, one row says so for all:
// twenty rows that the connection was refused tell nobody more.
func (l *Lab) answers(ctx context.Context, table *ui.Table) bool {
	ctx, cancel := context.WithTimeoutCause(ctx, hurtLimit, fmt.Errorf("no answer within %s", hurtLimit))
	defer cancel()
	client, err := l.connect(ctx)
	if err == nil {
		_, err = l.lessons(ctx, client)
	}
	if err != nil {
		table.Add("components", "unknown", err)
		table.Add("lessons", "unknown", "they are read from the same API server")
	}
	return err == nil
}

// addComponents adds a row for each component and each lesson. What cannot be had is unknown.
func (l *Lab) addComponents(ctx context.Context, table *ui.Table) {
	if err := l.adoptRecord(ctx); err != nil {
		table.Add("record", "unknown", err)
	}
	for _, step := range l.engine.Inspect(ctx, l.installPlan()) {
		if step.ID != "cluster" {
			table.Add(step.ID, stateOf(step), reasonOf(step))
		}
	}
	client, err := l.connect(ctx)
	var lessons Lessons
	if err == nil {
		lessons, err = l.lessons(ctx, client)
	}
	if err != nil {
		table.Add("lessons", "unknown", err)
		return
	}
	for _, row := range lessons.rows() {
		state, detail := row.state(l.engine.Inspect(ctx, l.planOfLesson(row.name, lessons)))
		table.Add("lesson "+row.name, state, detail)
	}
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
	for _, name := range names {
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
	if changes := len(result.Changes()); changes > 0 {
		l.next("%s: %d changes", result.Plan, changes)
		return
	}
	l.next("%s: nothing to change, everything already was as it should be", result.Plan)
}
