//go:build e2e

package e2e

import (
	"testing"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
)

// on are the lessons of sm:lab as the targets leave them with their default flags.
func on() probe.Lessons { return lesson.States(lesson.Course()...) }

// proven measures some claims and wants each of them made and proven.
func (l *lab) proven(t *testing.T, lessons probe.Lessons, claims ...string) {
	t.Helper()
	found, err := probe.Run(t.Context(), l.proofs(t, lessons, claims...))
	if err != nil {
		t.Fatal(err)
	}
	if len(found.Claims) != len(claims) {
		t.Errorf("%d claims were measured, want %v", len(found.Claims), claims)
	}
	for _, r := range found.Claims {
		if r.Verdict != probe.Proven {
			t.Errorf("not proven: %s", describe(r))
		}
	}
}

// testTakenOut takes appa out of the policy and puts it back.
func (l *lab) testTakenOut(t *testing.T) {
	without := lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Fault(params.DefaultFault()),
		lesson.Authz("appa", false))
	l.mage(t, "sm:authz", "-without=appa")
	l.proven(t, without, "authz-taken-out-appa", "authz-get-gateway")
	l.mage(t, "sm:authz")
	l.proven(t, on(), "authz-get-appa")
}
