//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
)

// testUnmeshedControl is the control of all proofs: with appa's pod taken out of the mesh, no claim about appa that
// needs the waypoint may come out proven, and the report must say why. The gateway's claims are not touched by it.
func (l *lab) testUnmeshedControl(t *testing.T) {
	const label = `{"spec":{"template":{"metadata":{"labels":{"istio.io/dataplane-mode":%s}}}}}`
	l.patch(t, deployments, "appa", strings.Replace(label, "%s", `"none"`, 1))
	defer func() {
		l.patch(t, deployments, "appa", strings.Replace(label, "%s", "null", 1))
		l.rolledOut(t, "appa", 1)
	}()
	l.rolledOut(t, "appa", 1)
	found, ended := l.verify(t)
	t.Logf("sm:verify:\n%s", ended.stdout)
	if ended.code == 0 {
		t.Error("sm:verify ends well although appa is not in the mesh")
	}
	results := map[string]probe.Result{}
	for _, r := range found.Claims {
		results[r.ID] = r
	}
	tested := 0
	for _, claim := range lesson.Claims() {
		r, made := results[claim.ID]
		if !made || !claim.NeedsWaypoint() {
			continue
		}
		switch claim.Shot.Caller {
		case probe.Appa:
			tested++
			if r.Verdict == probe.Proven {
				t.Errorf("proven without the mesh: %s", describe(r))
			}
			if !strings.Contains(strings.Join(r.Causes, "\n"), "not in the mesh") {
				t.Errorf("the reason is not given: %s", describe(r))
			}
		case probe.Gateway:
			if r.Verdict != probe.Proven {
				t.Errorf("the gateway has nothing to do with it: %s", describe(r))
			}
		}
	}
	if tested < 4 {
		t.Errorf("only %d claims about appa that need the waypoint were made", tested)
	}
}
