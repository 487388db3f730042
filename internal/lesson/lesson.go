// Package lesson holds the lessons: what a learner turns on and off and observes. A lesson is a value, one file each;
// All is the one list, and everything else loops over it: the plans, the rows of sm:status, the order of the lessons,
// sm:lab and sm:delete.
package lesson

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// All lists the lessons with their default parameters, each after those that it needs.
func All() []Lesson {
	return []Lesson{
		Apps(),
		Waypoint(),
		Fault(params.DefaultFault()),
		Authz("", false),
		Split(DefaultWeight),
		L4(false),
		Telemetry(),
	}
}

// Course lists the lessons that sm:lab turns on, one after the other.
func Course() []Lesson {
	return slices.DeleteFunc(All(), func(l Lesson) bool { return l.Extra })
}

// Claims lists what the lessons claim, in the order of the lessons.
func Claims() []probe.Claim {
	var all []probe.Claim
	for _, l := range All() {
		all = append(all, l.Claims...)
	}
	return all
}

// States gives every lesson, those in on with their parameters and all others as off.
func States(on ...Lesson) probe.Lessons {
	var states probe.Lessons
	for _, l := range All() {
		states = append(states, probe.LessonState{Name: l.Name})
	}
	for _, l := range on {
		states = With(states, l)
	}
	return states
}

// With gives the lessons with one of them on, with its parameters.
func With(lessons probe.Lessons, on Lesson) probe.Lessons {
	state := probe.LessonState{Name: on.Name, On: true, Text: on.On}
	if on.Recorded != nil {
		state.Parameters = on.Parameters
	}
	lessons = slices.Clone(lessons)
	at := slices.IndexFunc(lessons, func(s probe.LessonState) bool { return s.Name == on.Name })
	if at < 0 {
		return append(lessons, state)
	}
	lessons[at] = state
	return lessons
}

// Found gives every lesson as it was recorded when it was turned on.
func Found(found session.Found) (probe.Lessons, error) {
	var on []Lesson
	for _, l := range All() {
		recorded, isOn, err := l.AsRecorded(found)
		if err != nil {
			return nil, err
		}
		if isOn {
			on = append(on, recorded)
		}
	}
	return States(on...), nil
}

// Lesson is something that a learner turns on and off, with the parameters that were chosen for it.
type Lesson struct {
	// Name is that of its target, without sm:.
	Name string
	// Invalid is why the parameters are refused, or nil.
	Invalid error
	// Needs lists every lesson that must be on before this one, Excludes those that must be off. Of two lessons that
	// exclude each other, the later one in All lists the earlier one.
	Needs    []string
	Excludes []Exclusion
	// Extra lessons are not part of sm:lab, nor of what the hints name next.
	Extra bool
	// Possible, if not nil, refuses the lesson where what is installed does not allow it.
	Possible func(session.Config) *problem.Problem
	// Parameters are recorded in the cluster as JSON. Recorded gives the lesson with the parameters of such a record;
	// it is nil for a lesson that has none.
	Parameters any
	Recorded   func(json.RawMessage) (Lesson, error)
	// On and Off describe the lesson in a status, while it is on and while it is off.
	On, Off string
	// Data fills the templates of the lesson's specs, which are in the folder of its name.
	Data func(session.Config) map[string]any
	// Images are those of the pods that the lesson's own objects create.
	Images []string
	// Plan brings the lesson's objects; undoing it removes them.
	Plan func(Lesson, *session.Session) engine.Plan
	// InForce is what turning the lesson on waits for after the plan, and Gone what turning it off waits for: the API
	// server accepting an object does not mean that a proxy has its configuration. Both may be nil.
	InForce, Gone func(*session.Session) Wait
	// Remaining, if not nil, lists the objects that keep the lesson's effect after its own were deleted, by kind and
	// name: a learner may have made them. Turning the lesson off does not wait for what cannot come.
	Remaining func(*mesh.Objects) []string
	// Restarted, if not nil, is what sm:install waits for while the lesson is on: that its pods, which may have been
	// restarted, are ready and seen to be.
	Restarted func(*session.Session) Wait
	// Claims are what sm:verify checks: what holds while the lesson is on, and while it is off.
	Claims []probe.Claim
	// Missing is the problem of a lesson that needs this one while it is off; nil for a lesson that no other needs.
	// Lost, if not nil, says why this lesson cannot be relied on although it is on.
	Missing func(by string) *problem.Problem
	Lost    func(ctx context.Context, s *session.Session, by string) (*problem.Problem, error)
	// Show, if not nil, shows the lesson after it was turned on.
	Show func(context.Context, *session.Session) error
	// Effect, if not nil, looks for the first effect that a caller notices of the lesson being turned on, or off, and
	// says when that was. It needs traffic.
	Effect func(ctx context.Context, env probe.Env, began time.Time, off bool) string
	// Next and NextOff are what to type after the lesson was turned on, and off.
	Next    func(*session.Session) string
	NextOff string
}

// Exclusion is a lesson that must be off while another is on, and why.
type Exclusion struct{ Lesson, Why string }

// Wait is a state of the mesh that a lesson waits for.
type Wait struct {
	Title     string
	Condition mesh.Condition
}

// Names lists the names of all lessons, in order.
func Names() []string {
	var list []string
	for _, l := range All() {
		list = append(list, l.Name)
	}
	return list
}

// Named gives a lesson by its name, with its default parameters.
func Named(name string) (Lesson, bool) {
	for _, l := range All() {
		if l.Name == name {
			return l, true
		}
	}
	return Lesson{}, false
}

// AsRecorded gives the lesson with the parameters with which it was turned on; on says whether it was.
func (l Lesson) AsRecorded(found session.Found) (recorded Lesson, on bool, err error) {
	raw, on := found.Lessons[l.Name]
	if !on || l.Recorded == nil {
		return l, on, nil
	}
	recorded, err = l.Recorded(raw)
	if err != nil {
		return l, on, problem.New(problem.Internal, err, "the record of lesson %s does not hold what its target wrote",
			l.Name)
	}
	return recorded, on, nil
}

// fromRecord is the Recorded of a lesson that is made from its parameters.
func fromRecord[T any](of func(T) Lesson) func(json.RawMessage) (Lesson, error) {
	return func(raw json.RawMessage) (Lesson, error) {
		var parameters T
		err := json.Unmarshal(raw, &parameters)
		return of(parameters), err
	}
}

// named is the Remaining of a lesson whose effect is that of AuthorizationPolicies with these names.
func named(policies ...string) func(*mesh.Objects) []string {
	return func(o *mesh.Objects) []string {
		var remaining []string
		for _, name := range policies {
			if o.Policy(name) != nil {
				remaining = append(remaining, "authorizationpolicy "+name)
			}
		}
		return remaining
	}
}

// noData is the Data of a lesson whose specs are no templates.
func noData(session.Config) map[string]any { return nil }

// PlanToUndo is the lesson's plan alone, which is undone to turn the lesson off.
func (l Lesson) PlanToUndo(s *session.Session) engine.Plan { return l.Plan(l, s) }

// PlanToApply is the lesson's plan with the wait until it is in force as the last step.
func (l Lesson) PlanToApply(s *session.Session) engine.Plan {
	plan := l.Plan(l, s)
	if l.InForce == nil {
		return plan
	}
	last := waitStep(s, l.InForce(s))
	for _, step := range plan.Steps {
		last.Needs = append(last.Needs, step.ID)
	}
	plan.Steps = append(slices.Clone(plan.Steps), last)
	return plan
}

// PlanOfGone waits until the lesson is gone, after its plan was undone. It has no steps where there is nothing to wait
// for.
func (l Lesson) PlanOfGone(s *session.Session) engine.Plan {
	plan := engine.Plan{Name: l.Name + "-off", Title: "Wait until no proxy has it"}
	if l.Gone != nil {
		plan.Steps = []engine.Step{waitStep(s, l.Gone(s))}
	}
	return plan
}

// restartedLimit bounds the wait for restarted pods: what keeps them from being ready longer than that is for sm:status
// to say and for the lesson's own target to repair.
const restartedLimit = 30 * time.Second

// PlanOfRestarted waits until the restarted pods of the lessons that are on are ready and seen to be. It has no steps
// where that is so. Its steps do not fail: sm:install is done without the lessons.
func PlanOfRestarted(ctx context.Context, s *session.Session) engine.Plan {
	plan := engine.Plan{Name: "lessons", Title: "Lessons that are on"}
	for _, l := range All() {
		if _, on := s.Found.Lessons[l.Name]; !on || l.Restarted == nil {
			continue
		}
		wait := waitStep(s, l.Restarted(s))
		if status, err := wait.Check(ctx); err == nil && status.Done {
			continue
		}
		wait.ID = l.Name
		do := wait.Do
		wait.Do = func(ctx context.Context) error {
			limited, cancel := context.WithTimeoutCause(ctx, restartedLimit,
				fmt.Errorf("no success within %s", restartedLimit))
			defer cancel()
			err := do(limited)
			if err != nil && ctx.Err() == nil {
				engine.Progress(ctx, "not in force, and mage sm:%s repairs it: %v", l.Name, err)
				return nil
			}
			return err
		}
		wait.Check = nil
		plan.Steps = append(plan.Steps, wait)
	}
	return plan
}

// waitStep is done when the mesh is in a state.
func waitStep(s *session.Session, wait Wait) engine.Step {
	waited := false // Do has seen the state: one more look cannot tell for how long it has been so
	return engine.Step{
		ID: "arrived", Title: wait.Title, Timeout: s.Settings.StepTimeout(),
		Check: func(ctx context.Context) (engine.Status, error) {
			if waited {
				return engine.Status{Done: true}, nil
			}
			m, err := s.Mesh(ctx)
			if err != nil {
				return engine.Status{}, err
			}
			met, reason, err := m.Check(ctx, wait.Condition)
			return engine.Status{Done: met, Message: reason}, err
		},
		Do: func(ctx context.Context) error {
			m, err := s.Mesh(ctx)
			if err != nil {
				return err
			}
			err = m.Wait(ctx, wait.Condition)
			waited = err == nil
			return err
		},
	}
}

// Objects lists what the lesson may apply, with every choice of its parameters, and its record.
func (l Lesson) Objects(config session.Config) ([]*unstructured.Unstructured, error) {
	files, err := specs.OfLesson(l.Name)
	if err != nil {
		return nil, err
	}
	record, err := session.LessonRecord(l.Name, l.Parameters)
	if err != nil {
		return nil, err
	}
	all := []*unstructured.Unstructured{record}
	for _, file := range files {
		list, err := specs.Objects(file, l.Data(config))
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// specStep applies one of the lesson's specs.
func (l Lesson) specStep(s *session.Session, id, title, file string) engine.Step {
	return s.SetStep(id, title, nil, func(context.Context) ([]*unstructured.Unstructured, error) {
		return specs.Objects("lessons/"+l.Name+"/"+file, l.Data(s.Config))
	})
}

// recordedStep applies one of the lesson's specs and, with it, the record of the lesson. Its ID is the lesson's name.
func (l Lesson) recordedStep(s *session.Session, title, file string, needs ...string) engine.Step {
	return s.SetStep(l.Name, title, needs, func(context.Context) ([]*unstructured.Unstructured, error) {
		list, err := specs.Objects("lessons/"+l.Name+"/"+file, l.Data(s.Config))
		if err != nil {
			return nil, err
		}
		record, err := session.LessonRecord(l.Name, l.Parameters)
		if err != nil {
			return nil, err
		}
		return append(list, record), nil
	})
}

// Target is what the lessons work on: appb, its waypoint and the gateway.
func Target(s *session.Session) mesh.Target {
	return mesh.Target{
		Service:  mesh.Service{Namespace: s.Config.Namespace, Name: names.AppB, Port: names.AppPort},
		Waypoint: names.Waypoint,
		Gateway:  names.Gateway,
	}
}

// typed is a hint that is the same in every lab.
func typed(hint string) func(*session.Session) string {
	return func(*session.Session) string { return hint }
}

// offHint is what to type after a lesson was turned off.
func offHint(name string) string {
	return fmt.Sprintf("mage sm:verify to see that it is gone, or mage sm:%s to turn it on again", name)
}

// MayTurnOn refuses a lesson that needs another one which is off. Without a waypoint no proxy would run a delay or a
// policy, and the wait for it could only end at its deadline.
func (l Lesson) MayTurnOn(ctx context.Context, s *session.Session) error {
	if l.Possible != nil {
		if trouble := l.Possible(s.Config); trouble != nil {
			return trouble
		}
	}
	return l.mayTurnOn(s.Found, func(needed Lesson) (*problem.Problem, error) { return needed.Lost(ctx, s, l.Name) })
}

func (l Lesson) mayTurnOn(found session.Found, lost func(needed Lesson) (*problem.Problem, error)) error {
	for _, name := range l.Needs {
		needed, _ := Named(name)
		if _, on := found.Lessons[name]; !on {
			return needed.Missing(l.Name)
		}
		if needed.Lost == nil {
			continue
		}
		trouble, err := lost(needed)
		if err != nil {
			return err
		}
		if trouble != nil {
			return trouble
		}
	}
	return l.excluded(found)
}

// excluded refuses a lesson that must not be on together with one that is on.
func (l Lesson) excluded(found session.Found) error {
	for _, other := range All() {
		_, on := found.Lessons[other.Name]
		if !on || other.Name == l.Name {
			continue
		}
		for _, e := range append(slices.Clone(l.Excludes), other.Excludes...) {
			if e.Lesson != other.Name && e.Lesson != l.Name {
				continue
			}
			excluded := problem.New(problem.LessonExcluded, nil, "sm:%s is on, and sm:%s cannot be on with it: %s; "+
				"nothing was changed", other.Name, l.Name, e.Why)
			excluded.Advice = []string{ // the commands; the kind's advice says the same in general
				"Run `mage sm:" + other.Name + " -off`.", "Then run `mage sm:" + l.Name + "` again.",
			}
			return excluded
		}
	}
	return nil
}

// MayTurnOff refuses to turn a lesson off while others need it. With the waypoint gone under a policy, either no
// request could reach appb any more (-strict), or every request could. A lesson that is off may be turned off again.
func (l Lesson) MayTurnOff(found session.Found) error {
	if _, on := found.Lessons[l.Name]; !on {
		return nil
	}
	var dependents, advice []string
	for _, later := range slices.Backward(All()) {
		if _, on := found.Lessons[later.Name]; on && slices.Contains(later.Needs, l.Name) {
			dependents = append(dependents, "sm:"+later.Name)
			advice = append(advice, "Run `mage sm:"+later.Name+" -off`.")
		}
	}
	if len(dependents) == 0 {
		return nil
	}
	verb := "depends"
	if len(dependents) > 1 {
		verb = "depend"
	}
	advice = append(advice, "Then run `mage sm:"+l.Name+" -off` again.")
	needed := problem.New(problem.LessonNeeded, nil, "%s %s on sm:%s; nothing was changed",
		strings.Join(dependents, " and "), verb, l.Name)
	needed.Advice = advice // the commands; the kind's advice says the same in general
	return needed
}

// NextTarget is what to type where every lesson that is on works: the first lesson that is off, or the way back.
func NextTarget(found session.Found) string {
	for _, l := range Course() {
		if _, on := found.Lessons[l.Name]; !on && l.excluded(found) == nil {
			return "mage sm:" + l.Name
		}
	}
	last := ""
	for _, name := range Names() {
		if _, on := found.Lessons[name]; on {
			last = name
		}
	}
	return "mage sm:" + last + " -off turns the lessons off, the last one first; mage sm:delete removes the lab"
}
