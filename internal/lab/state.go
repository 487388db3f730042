package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Lessons says which lessons were asked for, and with what parameters. It is read from a ConfigMap that each lesson
// brings with it, not from the lesson's own objects: the proofs hold the one against the other.
type Lessons struct {
	Apps, Waypoint bool
	Fault          *params.Fault
	Authz          *params.Authz
}

const askedKey = "asked"

func askedName(lesson string) string { return "ambientlab-" + lesson }

// asked makes the ConfigMap that records a lesson.
func asked(lesson string, parameters any) (*unstructured.Unstructured, error) {
	raw, err := json.Marshal(parameters)
	if err != nil {
		return nil, fmt.Errorf("recording lesson %s: %w", lesson, err)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": askedName(lesson)},
		"data":     map[string]any{askedKey: string(raw)},
	}}, nil
}

// lessons reads what was asked for.
func (l *Lab) lessons(ctx context.Context, client *apply.Client) (Lessons, error) {
	var found Lessons
	var nothing struct{}
	read := func(lesson string, into any) (bool, error) {
		record, err := client.Kube().CoreV1().ConfigMaps(l.Settings.Namespace).Get(ctx, askedName(lesson), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("reading which lessons are on: %w", err)
		}
		if err := json.Unmarshal([]byte(record.Data[askedKey]), into); err != nil {
			return false, problem.New(problem.Internal, err, "ConfigMap %s does not hold what its target wrote", record.Name)
		}
		return true, nil
	}
	var err error
	if found.Apps, err = read("apps", &nothing); err != nil {
		return found, err
	}
	if found.Waypoint, err = read("waypoint", &nothing); err != nil {
		return found, err
	}
	var fault params.Fault
	if on, err := read("fault", &fault); err != nil {
		return found, err
	} else if on {
		found.Fault = &fault
	}
	var authz params.Authz
	if on, err := read("authz", &authz); err != nil {
		return found, err
	} else if on {
		found.Authz = &authz
	}
	return found, nil
}

// row describes a lesson for a table.
type row struct {
	name   string
	on     bool
	detail string
}

// rows describes the lessons in their order.
func (s Lessons) rows() []row {
	fault, authz := "no delay", "everybody may ask appb"
	if s.Fault != nil {
		fault = fmt.Sprintf("%v %% of %s delayed by %s", s.Fault.Percent, s.Fault.Paths(), s.Fault.Delay)
	}
	if s.Authz != nil {
		authz = "GET by " + strings.Join(s.Authz.Allowed, " and ")
		if len(s.Authz.Allowed) == 0 {
			authz = "nobody may ask appb"
		}
		if s.Authz.Strict {
			authz += "; only the waypoint reaches the pod"
		} else {
			authz += "; the pod can be reached around the waypoint"
		}
	}
	return []row{
		{"apps", s.Apps, "appa, appb, Gateway " + names.Gateway},
		{"waypoint", s.Waypoint, names.Waypoint + " before Service appb"},
		{"fault", s.Fault != nil, fault},
		{"authz", s.Authz != nil, authz},
	}
}

// next is what to type where everything that is on holds: the first lesson that is off, or the way back.
func (s Lessons) next() string {
	for _, r := range s.rows() {
		if !r.on {
			return "mage sm:" + r.name
		}
	}
	return "mage sm:authz -off takes the lessons back, the last one first; mage sm:delete ends the lab"
}

// planOfLesson is the plan of a lesson as it was asked for, with the wait for its arrival; empty for one that is off.
func (l *Lab) planOfLesson(name string, asked Lessons) engine.Plan {
	switch {
	case name == "apps" && asked.Apps:
		return l.appsLesson().whole()
	case name == "waypoint" && asked.Waypoint:
		return l.waypointLesson().whole()
	case name == "fault" && asked.Fault != nil:
		return l.faultLesson(*asked.Fault).whole()
	case name == "authz" && asked.Authz != nil:
		return l.authzLesson(*asked.Authz).whole()
	default:
		return engine.Plan{Name: name}
	}
}

// lessonReady is the state of a lesson that is on and holds.
const lessonReady = "on, ready"

// state says whether the lesson is on and, by what was found of its steps, whether it really holds. What was asked for
// and does not hold comes with the first reason.
func (r row) state(steps []engine.StepStatus) (state, detail string) {
	if !r.on {
		return "off", r.detail
	}
	for _, step := range steps {
		if what := stateOf(step); what != "ready" {
			return "on, " + what, r.detail + ": " + reasonOf(step)
		}
	}
	return lessonReady, r.detail
}
