package lab

import (
	"context"
	"testing"

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

	b.do("another weight", func(ctx context.Context) error {
		return Lesson(lesson.Split(50), false)(ctx, b.Env)
	})
	b.proven("split-appa")
	b.do("split off", off(lesson.Split(lesson.DefaultWeight))(b))
	b.proven("split-off-appa", "split-off-gateway")
	b.do("fault", b.fault)
	b.refused("split under fault", problem.LessonExcluded, b.split)
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
