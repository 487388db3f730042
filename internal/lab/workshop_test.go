package lab

import (
	"strings"
	"testing"
)

// TestReason finds what a learner must know of a target that failed in what it printed.
func TestReason(t *testing.T) {
	printed := `apps: done
Error          no waypoint runs for appb, and
               sm:fault needs one
What to do     - Run ` + "`mage sm:waypoint`" + ` first.
               - Or wait.
Problem        LAB-WAYPOINT-OFF: the lesson needs the waypoint

Exit code      68
Error: LAB-WAYPOINT-OFF`
	want := "no waypoint runs for appb, and sm:fault needs one. What to do: Run `mage sm:waypoint` first. - Or wait."
	if got := reason(strings.Split(printed, "\n")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := reason([]string{"killed"}); got != "its output says why" {
		t.Errorf("got %q", got)
	}
}
