package lab

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ambientlab/internal/lesson/params"

	"ambientlab/internal/problem"
)

func TestLessonsComeInOrder(t *testing.T) {
	apps := Lessons{Apps: true}
	waypoint := Lessons{Apps: true, Waypoint: true}
	for _, tc := range []struct {
		lesson   string
		asked    Lessons
		waypoint bool
		want     problem.Kind
		advice   string
	}{
		{lesson: "apps"},
		{lesson: "waypoint", asked: apps},
		{lesson: "fault", asked: waypoint, waypoint: true},
		{lesson: "authz", asked: waypoint, waypoint: true},
		{lesson: "waypoint", want: problem.ObjectMissing, advice: "mage sm:apps"},
		{lesson: "fault", want: problem.ObjectMissing, advice: "mage sm:apps"},
		{lesson: "fault", asked: apps, want: problem.WaypointOff, advice: "mage sm:waypoint"},
		{lesson: "authz", asked: apps, want: problem.WaypointOff, advice: "mage sm:waypoint"},
		{lesson: "authz", asked: waypoint, want: problem.WaypointOff, advice: "mage sm:waypoint"}, // somebody deleted the Gateway
	} {
		err := tc.asked.mayCome(tc.lesson, tc.waypoint)
		if tc.want.ID == "" {
			if err != nil {
				t.Errorf("%s on %+v: %v", tc.lesson, tc.asked, err)
			}
			continue
		}
		var seen *problem.Problem
		if !errors.As(err, &seen) || seen.ID != tc.want.ID || !strings.Contains(strings.Join(seen.Advice, "\n"), tc.advice) {
			t.Errorf("%s on %+v gives %v, want %s with the advice %s", tc.lesson, tc.asked, err, tc.want.ID, tc.advice)
		}
	}
}

func TestLessonsGoInOrder(t *testing.T) {
	all := Lessons{Apps: true, Waypoint: true, Fault: &params.Fault{}, Authz: &params.Authz{Strict: true}}
	for _, tc := range []struct {
		lesson string
		asked  Lessons
		advice []string // nil: it may go
	}{
		{"fault", all, nil},
		{"authz", all, nil},
		{"waypoint", Lessons{Apps: true, Waypoint: true}, nil},
		{"apps", Lessons{Apps: true}, nil},
		// What is off already may be turned off again, whatever is on.
		{"apps", Lessons{}, nil},
		{"waypoint", Lessons{Apps: true, Authz: &params.Authz{Strict: true}}, nil},
		{"waypoint", all, []string{"mage sm:authz -off", "mage sm:fault -off", "mage sm:waypoint -off"}},
		{"waypoint", Lessons{Apps: true, Waypoint: true, Fault: &params.Fault{}}, []string{"mage sm:fault -off", "mage sm:waypoint -off"}},
		{"apps", all, []string{"mage sm:authz -off", "mage sm:fault -off", "mage sm:waypoint -off", "mage sm:apps -off"}},
	} {
		err := tc.asked.mayGo(tc.lesson)
		if tc.advice == nil {
			if err != nil {
				t.Errorf("%s from %+v: %v", tc.lesson, tc.asked, err)
			}
			continue
		}
		var seen *problem.Problem
		if !errors.As(err, &seen) || seen.ID != problem.LessonNeeded.ID || len(seen.Advice) < len(tc.advice) {
			t.Errorf("%s from %+v gives %v", tc.lesson, tc.asked, err)
			continue
		}
		// The commands come first, in the order in which they work.
		if !slices.EqualFunc(seen.Advice[:len(tc.advice)], tc.advice, strings.Contains) {
			t.Errorf("%s from %+v advises %q, want %q", tc.lesson, tc.asked, seen.Advice, tc.advice)
		}
	}
}
