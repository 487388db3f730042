package lab

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/problem"
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
	if err := remaining(ctx, s, l); err != nil {
		return err
	}
	if gone := l.PlanOfGone(s); len(gone.Steps) > 0 {
		if _, err := s.Apply(ctx, gone); err != nil {
			return err
		}
	}
	tellEffect(s, effectOf(ctx, s, l, began, true)())
	s.Next("%s", l.NextOff)
	return nil
}

// remaining fails where objects that the lab did not make keep the effect of a lesson whose own objects are deleted.
func remaining(ctx context.Context, s *session.Session, l lesson.Lesson) error {
	if l.Remaining == nil {
		return nil
	}
	m, err := s.Mesh(ctx)
	if err != nil {
		return err
	}
	objects, err := m.Objects(ctx, lesson.Target(s))
	if err != nil {
		return err
	}
	kept := l.Remaining(objects)
	if len(kept) == 0 {
		return nil
	}
	found := problem.New(problem.LessonRemains, nil, "the objects of sm:%s are deleted, and its effect remains: the "+
		"lab did not make %s in namespace %s, and so does not delete it", l.Name, strings.Join(kept, " and "),
		s.Config.Namespace)
	found.Advice = nil // the commands; the kind's advice says the same in general
	for _, object := range kept {
		found.Advice = append(found.Advice, fmt.Sprintf("If you no longer need it, run `kubectl -n %s delete %s`.",
			s.Config.Namespace, object))
	}
	found.Advice = append(found.Advice,
		"Then run `mage sm:"+l.Name+" -off` again, which checks that the effect is gone.")
	return found
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
