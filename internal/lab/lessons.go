package lab

import (
	"context"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/session"
)

// Lesson is the target that turns a lesson on, or off.
func Lesson(l lesson.Lesson, off bool) Target {
	return func(ctx context.Context, env *session.Env) error {
		if l.Invalid != nil {
			return l.Invalid
		}
		began := time.Now()
		s, err := session.Open(ctx, env, session.MustBeInstalled)
		if err != nil {
			return err
		}
		if off {
			return turnOff(ctx, s, l, began)
		}
		return turnOn(ctx, s, l, began)
	}
}

// turnOn applies the lesson and waits until it is in force.
func turnOn(ctx context.Context, s *session.Session, l lesson.Lesson, began time.Time) error {
	if err := l.MayTurnOn(ctx, s); err != nil {
		return err
	}
	looking, stop := context.WithCancel(ctx)
	defer stop()
	effect := effectOf(looking, s, l, began, false)
	seen := make(chan string, 1)
	_, wasOn := s.Found.Lessons[l.Name]
	if !wasOn {
		// A caller looks for the effect while the lesson is applied. An earlier form of the lesson would have one
		// already.
		go func() { seen <- effect() }()
	}
	result, err := s.Apply(ctx, l.PlanToApply(s))
	if err != nil {
		return err
	}
	tellLeft(s, result)
	if wasOn {
		seen <- effect()
	}
	tellEffect(s, <-seen)
	if l.Show != nil {
		if err := l.Show(ctx, s); err != nil {
			return err
		}
	}
	s.Next("%s", l.Next(s))
	return nil
}

// turnOff undoes the lesson, with the parameters with which it was turned on, and waits until it is gone.
func turnOff(ctx context.Context, s *session.Session, l lesson.Lesson, began time.Time) error {
	if err := l.MayTurnOff(s.Found); err != nil {
		return err
	}
	l, _, err := l.AsRecorded(s.Found)
	if err != nil {
		return err
	}
	plan := l.PlanToUndo(s)
	plan.Title = "Turn off: " + plan.Title
	result, err := s.Undo(ctx, plan)
	if err != nil {
		return err
	}
	tellLeft(s, result)
	if gone := l.PlanOfGone(s); len(gone.Steps) > 0 {
		if _, err := s.Apply(ctx, gone); err != nil {
			return err
		}
	}
	tellEffect(s, effectOf(ctx, s, l, began, true)())
	s.Next("%s", l.NextOff)
	return nil
}

// effectOf gives the function that looks for the first effect of a lesson and says when a caller noticed it, where the
// lesson and the lab can tell; else it says nothing.
func effectOf(ctx context.Context, s *session.Session, l lesson.Lesson, began time.Time, off bool) func() string {
	none := func() string { return "" }
	if l.Effect == nil || !s.Info.Packets {
		return none
	}
	env, err := proofs(ctx, s)
	if err != nil {
		return none
	}
	return func() string {
		defer func() { _ = env.World.Close(context.WithoutCancel(ctx)) }()
		return l.Effect(ctx, env, began, off)
	}
}

func tellEffect(s *session.Session, text string) {
	if text != "" {
		s.Tell("%s", text)
	}
}
