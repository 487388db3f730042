//go:build e2e && e2efull

package e2e

import (
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/problem"
)

// testNoZtunnel takes ztunnel off every node. No pod of the mesh can start then, and the lab must say that this is the
// cause, and not only that it waited; installing again puts it right.
func (l *lab) testNoZtunnel(t *testing.T) {
	kube, _ := l.kube(t)
	away := []byte(`{"spec":{"template":{"spec":{"nodeSelector":{"lab.opssec.in/nowhere":"true"}}}}}`)
	if _, err := kube.AppsV1().DaemonSets(istioSystem).
		Patch(t.Context(), "ztunnel", types.MergePatchType, away, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "ztunnel to be gone", func() (bool, string) {
		pods, err := kube.CoreV1().Pods(istioSystem).List(t.Context(), metav1.ListOptions{LabelSelector: "app=ztunnel"})
		return err == nil && len(pods.Items) == 0, "still there"
	})
	if err := kube.CoreV1().Pods("default").
		DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{LabelSelector: "app=appb"}); err != nil {
		t.Fatal(err)
	}
	before := l.env
	l.env = append(slices.Clone(before), "SM_TIMEOUT=1m")
	ended := l.try(t, "sm:apps")
	l.env = before
	if ended.code != problem.ZtunnelDown.Exit() || !strings.Contains(ended.stderr, problem.ZtunnelDown.ID) ||
		!strings.Contains(ended.stderr, "no ztunnel connection") {
		t.Errorf("exit %d, want %d, and the cause by name", ended.code, problem.ZtunnelDown.Exit())
	}
	status := l.mage(t, "sm:status")
	for _, want := range []string{"ztunnel", "on, not ready", "no ztunnel connection"} {
		if !strings.Contains(status.stdout, want) {
			t.Errorf("sm:status does not say %q:\n%s", want, status.stdout)
		}
	}
	l.mage(t, "sm:install")
	l.mage(t, "sm:apps")
}
