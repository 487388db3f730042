package probe

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
)

// Without packets istio-cni takes no pod into the mesh, so that a pod outside it is no cause for what istiod sends.
func TestCausesOfPodsOutsideTheMesh(t *testing.T) {
	objects := &mesh.Objects{AppPods: map[string][]corev1.Pod{names.AppA: {{}}}}
	claim := Claim{Shot: Shot{Caller: Appa}}
	for evidence, want := range map[Evidence]bool{OnTraffic: true, OnConfiguration: false} {
		found := causes(objects, nil, claim, Report{Evidence: evidence}, Result{Verdict: Refuted})
		if got := strings.Contains(strings.Join(found, "\n"), "istio-cni"); got != want || len(found) == 0 {
			t.Errorf("%s: %q", evidence, found)
		}
	}
}
