//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"ambientlab/internal/lesson"
)

// testFurtherLessons turns on the lessons that sm:lab leaves out, together, has them proven, and turns them off. It
// needs a waypoint without a delay.
func (l *lab) testFurtherLessons(t *testing.T) {
	l.mage(t, "sm:split")
	l.mage(t, "sm:l4")
	shown := l.mage(t, "sm:telemetry")
	for _, says := range []string{
		"no proxy counts istio_requests_total", "this Prometheus has no web pages", "this Jaeger has no web pages",
		"not installed, so nothing is claimed of it: grafana, kiali",
	} {
		if !strings.Contains(shown.stderr, says) {
			t.Errorf("sm:telemetry does not say %q", says)
		}
	}
	if refused := l.try(t, "sm:fault"); refused.code == 0 || !strings.Contains(refused.stderr, "LAB-LESSON-EXCLUDED") {
		t.Errorf("sm:fault under sm:split exits with %d: %s", refused.code, refused.stderr)
	}
	verify := l.verified(t)
	t.Logf("sm:verify:\n%s", verify.stdout)
	for _, id := range []string{
		"split-appa", "split-gateway", "l4-denied", "l4-allowed", "l4-through", "prometheus-targets",
		"prometheus-edges", "jaeger-trace", "jaeger-requests",
	} {
		if !strings.Contains(verify.stdout, id) {
			t.Errorf("sm:verify makes no claim %s", id)
		}
	}
	l.mage(t, "sm:telemetry", "-off")
	l.mage(t, "sm:l4", "-off")
	l.mage(t, "sm:l4", "-http")
	l.proven(t, lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Split(lesson.DefaultWeight),
		lesson.L4(true)), "l4-http")
	l.mage(t, "sm:l4", "-off")
	l.mage(t, "sm:split", "-off")
	l.proven(t, lesson.States(lesson.Apps(), lesson.Waypoint()), "l4-off", "split-off-appa", "split-off-gateway")
}
