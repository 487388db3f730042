package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

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
	if err := l.leaveBundleAside(info); err != nil {
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
	rest, err := l.lookFurther(ctx, info)
	if err != nil {
		return err
	}
	if rest != "" { // there is nothing more to see
		if err := table.Write(l.out); err != nil {
			return err
		}
		if !info.Exists {
			l.tellBeside(info)
		}
		l.tell("%s", rest)
		return nil
	}
	known, next := true, "mage sm:install, which starts what does not run"
	if hurt(info) {
		known = l.answers(ctx, &table)
	}
	if known {
		if mends := l.addComponents(ctx, info, &table); !hurt(info) {
			next = mends
		}
	}
	if err := table.Write(l.out); err != nil {
		return err
	}
	if known {
		l.tellSubstitutes(ctx)
	}
	l.thenType("%s", next)
	return nil
}

// lookFurther says what to do where a status has nothing to show beyond the cluster itself, or gives "".
func (l *Lab) lookFurther(ctx context.Context, info cluster.Info) (string, error) {
	switch info.State {
	case cluster.Absent:
		return "next: mage sm:install", nil
	case cluster.Partial:
		return "next: mage sm:install, which removes what is there and begins anew", nil
	case cluster.Foreign:
		return "the lab neither uses nor deletes this cluster; choose another name with SM_CLUSTER", nil
	case cluster.Unreachable:
		return fmt.Sprintf("next: see that the cluster of context %s runs, or choose another: kubectl config use-context", info.Context), nil
	}
	if l.Settings.Provider == ProviderExisting {
		err := l.mustBeInstalled(ctx, info)
		var known *problem.Problem
		if errors.As(err, &known) {
			return fmt.Sprintf("%s; %s", known.Seen, strings.Join(known.Advice, " ")), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", nil
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

// addComponents adds a row for each component and each lesson, and gives what to type next: the target that mends the
// first thing that is not ready, or the next lesson. What cannot be had is unknown.
func (l *Lab) addComponents(ctx context.Context, info cluster.Info, table *ui.Table) (next string) {
	broken := ""
	for _, look := range []func() error{
		func() error { return l.adoptRecord(ctx) },
		func() error { return l.seeParts(ctx, info) },
	} {
		if err := look(); err != nil {
			table.Add("record", "unknown", err)
			broken = "install"
		}
	}
	for _, step := range l.engine.Inspect(ctx, l.installPlan()) {
		if broken == "" && stateOf(step) != "ready" {
			broken = "install"
		}
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
		return "mage sm:install, which mends what is not ready"
	}
	for _, row := range lessons.rows() {
		state, detail := row.state(l.engine.Inspect(ctx, l.planOfLesson(row.name, lessons)))
		if broken == "" && row.on && state != lessonReady {
			broken = row.name
		}
		table.Add("lesson "+row.name, state, detail)
	}
	if broken != "" {
		return fmt.Sprintf("mage sm:%s, which mends what is not ready", broken)
	}
	return lessons.next()
}

func stateOf(step engine.StepStatus) string {
	switch {
	case step.Err != nil:
		return "unknown"
	case step.Status.Done:
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
// without one every object is listed as one to create, and nobody has judged it.
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
	info, err := l.foresee(ctx)
	if err != nil {
		return err
	}
	if l.none == nil {
		if err := l.seeParts(ctx, info); err != nil {
			return err
		}
	}
	todo := "" // the first target that would change something
	for _, name := range names {
		if name != planNames[0] && len(l.installed.parts) > 0 {
			// The lessons go by what is installed; sm:install itself by what the settings ask for now.
			if err := l.adoptRecord(ctx); err != nil {
				return err
			}
		}
		plan := l.planOf(name)
		if l.none != nil {
			plan = unmade(plan)
		}
		previews, err := l.engine.Preview(ctx, plan)
		if err != nil {
			return fmt.Errorf("looking ahead at %s: %w", name, err)
		}
		if err := ui.WritePreviews(l.out, "mage sm:"+name+": "+plan.Title, previews, 120); err != nil {
			return fmt.Errorf("printing the plan of %s: %w", name, err)
		}
		if todo == "" && slices.ContainsFunc(previews, func(p engine.Preview) bool { return !p.Status.Done }) {
			todo = name
		}
	}
	l.thenType("mage sm:%s", cmp.Or(todo, "verify"))
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
		return l.faultPlan(params.DefaultFault())
	case "authz":
		return l.authzPlan(params.Authz{Allowed: []string{names.AppA, names.GatewayAccount}})
	default:
		return l.installPlan()
	}
}

// tellChanges says how much a run changed; nothing is worth saying too.
func (l *Lab) tellChanges(result engine.Result) {
	l.tellLeft(result)
	if changes := len(result.Changes()); changes > 0 {
		l.tell("%s: %d changes", result.Plan, changes)
		return
	}
	l.tell("%s: nothing to change, everything already was as it should be", result.Plan)
}
