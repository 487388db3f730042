package lab

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// TestRestartPods wants exactly those pods deleted that run a replaced image on their node and are created again.
func TestRestartPods(t *testing.T) {
	owner := true
	pod := func(namespace, name, node, image string, owned bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		p.Spec.NodeName = node
		p.Spec.Containers = []corev1.Container{{Image: "docker.io/a:1"}, {Image: image}}
		if owned {
			p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "r", Controller: &owner}}
		}
		return p
	}
	const old, other = "docker.io/jaeger:2", "docker.io/kiali:2"
	kube := fake.NewClientset(
		pod("istio-system", "stale", "n1", old, true), pod("istio-system", "fresh", "n2", old, true),
		pod("istio-system", "another", "n1", other, true), pod("istio-system", "bare", "n1", old, false),
		pod("elsewhere", "users", "n1", old, true),
	)
	if err := restartPods(t.Context(), kube, []string{"istio-system"},
		map[string][]string{"n1": {old}, "n2": nil}); err != nil {
		t.Fatal(err)
	}
	left, err := kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range left.Items {
		found = append(found, p.Name)
	}
	slices.Sort(found)
	if !slices.Equal(found, []string{"another", "bare", "fresh", "users"}) {
		t.Errorf("left are %v", found)
	}
}
