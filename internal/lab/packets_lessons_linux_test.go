package lab

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/sabotage"
)

func (b *bench) split(ctx context.Context) error {
	return Lesson(lesson.Split(lesson.DefaultWeight), false)(ctx, b.Env)
}

func (b *bench) l4(ctx context.Context) error {
	return Lesson(lesson.L4(false), false)(ctx, b.Env)
}

func (b *bench) telemetry(ctx context.Context) error {
	return Lesson(lesson.Telemetry(), false)(ctx, b.Env)
}

// off turns a lesson off.
func off(l lesson.Lesson) func(*bench) func(context.Context) error {
	return func(b *bench) func(context.Context) error {
		return func(ctx context.Context) error { return Lesson(l, true)(ctx, b.Env) }
	}
}

// TestPacketsFurtherLessons takes a lab whose pods run through the lessons that are not part of sm:lab: on and proven,
// tampered with and refuted, off and proven to be gone.
func TestPacketsFurtherLessons(t *testing.T) {
	b := newBench(t, "packets-lessons", "SM_PACKETS=on", "SM_ADDONS=none")
	b.installOrSkip()
	b.do("apps", b.apps)
	b.refused("split without a waypoint", problem.WaypointOff, b.split)
	b.do("l4", b.l4)
	b.proven("l4-denied", "l4-allowed", "l4-denied-service")
	b.do("waypoint", b.waypoint)
	b.proven("l4-denied", "l4-allowed", "l4-through")
	b.do("split", b.split)
	b.proven("split-appa", "split-gateway")
	b.refused("fault under split", problem.LessonExcluded, b.fault)
	for _, way := range sabotage.Further() {
		b.refutes(way)
	}

	b.do("l4 off", off(lesson.L4(false))(b))
	b.proven("l4-off", "direct-open")
	b.talk.reset()
	b.do("l4 -http", func(ctx context.Context) error {
		return Lesson(lesson.L4(true), false)(ctx, b.Env)
	})
	says(t, "l4 -http", b.talk.String(), "ztunnel sees connections and not requests")
	b.proven("l4-http", "l4-allowed", "l4-through")
	b.do("l4 off", off(lesson.L4(false))(b))
	b.proven("l4-off")
	b.remains(off(lesson.L4(false)), authorizationPolicies, `{"apiVersion":"security.istio.io/v1",
		"kind":"AuthorizationPolicy","metadata":{"name":"appb-l4"},"spec":{"selector":{"matchLabels":{"app":"appb"}},
		"action":"DENY","rules":[{"from":[{"source":{"namespaces":["shop"]}}]}]}}`)

	b.do("another weight", func(ctx context.Context) error {
		return Lesson(lesson.Split(50), false)(ctx, b.Env)
	})
	b.proven("split-appa")
	b.remains(off(lesson.Split(lesson.DefaultWeight)), httpRoutes, `{"apiVersion":"gateway.networking.k8s.io/v1",
		"kind":"HTTPRoute","metadata":{"name":"mine"},"spec":{"parentRefs":[{"group":"","kind":"Service","name":"appb",
		"port":8000}],"rules":[{"backendRefs":[{"name":"appa","port":8000}]}]}}`)
	b.do("split off", off(lesson.Split(lesson.DefaultWeight))(b))
	b.proven("split-off-appa", "split-off-gateway")
	b.do("fault", b.fault)
	b.refused("split under fault", problem.LessonExcluded, b.split)
}

var (
	httpRoutes = schema.GroupVersionResource{
		Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes",
	}
	authorizationPolicies = schema.GroupVersionResource{
		Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies",
	}
)

// remains creates an object as a learner would, without the lab's labels. Turning the lesson off does not delete it,
// names it, and does not wait. Then the learner deletes it, as the advice says.
func (b *bench) remains(
	off func(*bench) func(context.Context) error, kind schema.GroupVersionResource, object string,
) {
	b.t.Helper()
	made := &unstructured.Unstructured{}
	if err := made.UnmarshalJSON([]byte(object)); err != nil {
		b.t.Fatal(err)
	}
	objects := b.dynamic().Resource(kind).Namespace("default")
	if _, err := objects.Create(b.t.Context(), made, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	start := time.Now()
	err := off(b)(b.t.Context())
	b.t.Logf("with %s of a learner, the lesson's -off ended after %s", made.GetName(),
		time.Since(start).Round(time.Millisecond))
	var found *problem.Problem
	command := strings.ToLower(made.GetKind()) + " " + made.GetName()
	if !errors.As(err, &found) || found.ID != problem.LessonRemains.ID ||
		!strings.Contains(strings.Join(found.Advice, "\n"), "kubectl -n default delete "+command) {
		b.t.Errorf("got %v, want %s with the command that deletes %s", err, problem.LessonRemains.ID, command)
	}
	if err := objects.Delete(b.t.Context(), made.GetName(), metav1.DeleteOptions{}); err != nil {
		b.t.Errorf("the learner's object was not left: %v", err)
	}
}

// proven wants claims proven.
func (b *bench) proven(claims ...string) {
	b.t.Helper()
	for _, r := range b.conclusive(claims) {
		if r.Verdict != probe.Proven {
			b.t.Errorf("%s is %s: %+v, causes %q", r.ID, r.Verdict, r.Checks, r.Causes)
		}
	}
}
