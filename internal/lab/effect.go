package lab

import (
	"context"
	"time"

	"ambientlab/internal/lesson/params"

	"ambientlab/internal/probe"
)

// effectPatience is how long the first sign of a lesson is waited for.
const effectPatience = 45 * time.Second

// tellEffect says when a caller could first feel that the fault is on, or gone. It is a note: what it cannot find out
// fails no target, and where nobody can send it says nothing.
func (l *Lab) tellEffect(ctx context.Context, began time.Time, fault params.Fault, off bool) {
	if !l.carriesPackets() {
		return
	}
	env, _, err := l.proofs(ctx)
	if err != nil || !env.Lessons.Waypoint {
		return
	}
	who := probe.Appa
	if !probe.Admitted(who)(env.Lessons) {
		who = probe.Gateway
	}
	ctx, cancel := context.WithTimeout(ctx, effectPatience+fault.Delay)
	defer cancel()
	look, what := probe.FirstDelayed, "the first delayed response"
	if off {
		look, what = probe.NoneDelayed, "only undelayed responses"
	}
	seen, err := look(ctx, env, who, fault)
	if err != nil {
		l.tell("%s from %s: not seen (%v)", what, who, err)
		return
	}
	l.tell("%s from %s: %s after the target began, %d requests later", what, who, time.Since(began).Round(10*time.Millisecond), seen.Requests)
}
