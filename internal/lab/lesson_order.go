package lab

import (
	"context"
	"slices"
	"strings"

	"ambientlab/internal/lesson/names"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
)

// lessonOrder lists the lessons in the order in which they stand on each other. The last two stand on the waypoint
// alone, not on one another.
var lessonOrder = []string{"apps", "waypoint", "fault", "authz"}

// inOrder refuses, before anything is touched, a lesson whose ground is missing, and the end of one that others stand
// on. Without a waypoint nobody would run a delay or a policy, and the wait for it could only time out; and with the
// waypoint gone under a policy, either nobody could reach appb any more (-strict), or everybody could again, in silence.
func (l *Lab) inOrder(ctx context.Context, name string, off bool) error {
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	var asked Lessons
	var waypoint bool
	err = apply.Retry(ctx, restartPatience, func(ctx context.Context) error {
		if asked, err = l.lessons(ctx, client); err != nil {
			return err
		}
		gateway, err := l.get(ctx, client, gatewayKind, names.Waypoint)
		waypoint = gateway != nil
		return err
	})
	if err != nil {
		return err
	}
	if off {
		return asked.mayGo(name)
	}
	return asked.mayCome(name, waypoint)
}

// mayCome says why a lesson cannot be turned on; waypoint tells whether the waypoint's Gateway is really there.
func (s Lessons) mayCome(name string, waypoint bool) error {
	if name != "apps" && !s.Apps {
		return problem.New(problem.ObjectMissing, nil, "sm:%s needs appb, and the applications are not installed; nothing was changed", name)
	}
	if name != "fault" && name != "authz" {
		return nil
	}
	if !s.Waypoint {
		return problem.New(problem.WaypointOff, nil, "sm:%s works at the waypoint, and sm:waypoint is off; nothing was changed", name)
	}
	if !waypoint {
		return problem.New(problem.WaypointOff, nil, "sm:%s works at the waypoint, and Gateway %s is gone, though sm:waypoint is on; nothing was changed", name, names.Waypoint)
	}
	return nil
}

// mayGo says why a lesson cannot be taken back. One that is off already can: there is nothing to take.
func (s Lessons) mayGo(name string) error {
	if name != "apps" && name != "waypoint" || !s.on(name) {
		return nil
	}
	var standing, advice []string
	for _, later := range slices.Backward(lessonOrder[slices.Index(lessonOrder, name)+1:]) {
		if s.on(later) {
			standing = append(standing, "sm:"+later)
			advice = append(advice, "Run `mage sm:"+later+" -off`.")
		}
	}
	if len(standing) == 0 {
		return nil
	}
	advice = append(advice, "Then run `mage sm:"+name+" -off` again.")
	return problem.New(problem.LessonNeeded, nil, "sm:%s is what %s stands on; nothing was changed", name, strings.Join(standing, " and ")).With(advice...)
}

// on tells whether a lesson was asked for.
func (s Lessons) on(name string) bool {
	return slices.ContainsFunc(s.rows(), func(r row) bool { return r.name == name && r.on })
}
