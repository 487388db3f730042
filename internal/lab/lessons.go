package lab

import (
	"context"
	"slices"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/engine"
)

// AuthzOptions is the lesson of authorization: who is taken out, and whether the ways around are closed.
type AuthzOptions struct {
	Without string // comma-separated: appa, gateway-istio
	Strict  bool
}

// lesson is something a learner turns on and off. Its plan changes the cluster; arrival is the wait until the proxies
// run it, or no longer do: the API server accepting an object says nothing about either.
type lesson struct {
	plan    engine.Plan
	arrival func(off bool) engine.Step
	// effect says when somebody could feel the lesson, or no longer did.
	effect func(ctx context.Context, off bool)
	show   func(context.Context) error
	// next and nextOff are what to type next, with the lesson on and off.
	next, nextOff string
}

// whole is the lesson's plan with the wait for its arrival as the last step.
func (s lesson) whole() engine.Plan {
	plan := s.plan
	if s.arrival == nil {
		return plan
	}
	last := s.arrival(false)
	for _, step := range plan.Steps {
		last.Needs = append(last.Needs, step.ID)
	}
	plan.Steps = append(slices.Clone(plan.Steps), last)
	return plan
}

func (l *Lab) appsLesson() lesson {
	return lesson{
		plan: l.appsPlan(), show: l.tellAccess, next: "mage sm:waypoint",
		nextOff: "mage sm:apps to have them back, or mage sm:delete",
	}
}

func (l *Lab) waypointLesson() lesson {
	show := func(ctx context.Context) error { return l.printProxies(ctx, names.Gateway, names.Waypoint) }
	return lesson{
		plan: l.waypointPlan(), arrival: l.waypointArrival, show: show, next: "mage sm:fault",
		nextOff: "mage sm:verify to see that it is gone, or mage sm:waypoint to have it back",
	}
}

func (l *Lab) faultLesson(fault params.Fault) lesson {
	arrival := func(off bool) engine.Step { return l.faultArrival(fault, off) }
	next := "mage sm:traffic to see it, then mage sm:authz"
	if !l.carriesPackets() {
		next = "mage sm:proxyConfig -of=waypoint to see it, then mage sm:authz"
	}
	return lesson{
		plan: l.faultPlan(fault), arrival: arrival, next: next,
		nextOff: "mage sm:verify to see that it is gone, or mage sm:fault to have it back",
	}
}

func (l *Lab) authzLesson(authz params.Authz) lesson {
	arrival := func(off bool) engine.Step { return l.authzArrival(authz, off) }
	return lesson{
		plan: l.authzPlan(authz), arrival: arrival, next: "mage sm:verify",
		nextOff: "mage sm:verify to see that it is gone, or mage sm:authz to have it back",
	}
}

// Apps deploys the two applications and the gateway, or takes them away.
func (l *Lab) Apps(ctx context.Context, off bool) error {
	return l.teach(ctx, l.appsLesson, off)
}

// Waypoint puts a waypoint before appb, or takes it away.
func (l *Lab) Waypoint(ctx context.Context, off bool) error {
	return l.teach(ctx, l.waypointLesson, off)
}

// Fault turns the delay on or off.
func (l *Lab) Fault(ctx context.Context, fault params.Fault, off bool) error {
	if err := fault.Validate(); err != nil {
		return err
	}
	if off {
		var err error
		if fault, err = l.faultInForce(ctx, fault); err != nil {
			return err
		}
	}
	began := time.Now()
	return l.teach(ctx, func() lesson {
		lesson := l.faultLesson(fault)
		lesson.effect = func(ctx context.Context, off bool) { l.tellEffect(ctx, began, fault, off) }
		return lesson
	}, off)
}

// faultInForce is the delay that is on: to turn it off, nobody needs to repeat the flags that turned it on, and waiting
// for the end of a delay of another path would be no wait at all.
func (l *Lab) faultInForce(ctx context.Context, fallback params.Fault) (params.Fault, error) {
	if err := l.attach(ctx); err != nil {
		return fallback, err
	}
	client, err := l.connect(ctx)
	if err != nil {
		return fallback, err
	}
	lessons, err := l.lessons(ctx, client)
	if err != nil || lessons.Fault == nil {
		return fallback, err
	}
	return *lessons.Fault, nil
}

// Authz turns the policies on or off.
func (l *Lab) Authz(ctx context.Context, options AuthzOptions, off bool) error {
	authz, err := params.NewAuthz(options.Without, options.Strict)
	if err != nil {
		return err
	}
	return l.teach(ctx, func() lesson { return l.authzLesson(authz) }, off)
}

// teach turns a lesson on or off on a cluster that must exist.
//
// The lesson is made by the settings that hold after attaching: those of the installation, where the environment does
// not say otherwise.
func (l *Lab) teach(ctx context.Context, describe func() lesson, off bool) error {
	if err := l.attach(ctx); err != nil {
		return err
	}
	lesson := describe()
	if err := l.inOrder(ctx, lesson.plan.Name, off); err != nil {
		return err
	}
	if off {
		return l.unteach(ctx, lesson)
	}
	result, err := l.apply(ctx, lesson.whole())
	if err != nil {
		return err
	}
	l.tellChanges(result)
	if lesson.effect != nil {
		lesson.effect(ctx, false)
	}
	if lesson.show != nil {
		if err := lesson.show(ctx); err != nil {
			return err
		}
	}
	l.thenType("%s", lesson.next)
	return nil
}

// unteach takes a lesson back and waits until the proxies have forgotten it.
func (l *Lab) unteach(ctx context.Context, lesson lesson) error {
	result, err := l.undo(ctx, lesson.plan)
	if err != nil {
		return err
	}
	l.tellChanges(result)
	if lesson.arrival != nil {
		gone := engine.Plan{Name: lesson.plan.Name + "-off", Title: "Proxies without it", Steps: []engine.Step{lesson.arrival(true)}}
		if _, err := l.apply(ctx, gone); err != nil {
			return err
		}
	}
	if lesson.effect != nil {
		lesson.effect(ctx, true)
	}
	l.thenType("%s", lesson.nextOff)
	return nil
}
