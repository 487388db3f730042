package mesh

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestNotify(t *testing.T) {
	service := func(name, gateway, version string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", ResourceVersion: version,
			Labels: map[string]string{GatewayLabel: gateway},
		}}
	}
	kube := fake.NewClientset(service("gateway-istio", "gateway", "41"),
		service("appb-waypoint", "appb-waypoint", "42"))
	m := &Mesh{kube: kube}
	notified, err := m.Notify(t.Context(), "default", "gateway")
	if err != nil || strings.Join(notified, " ") != "gateway-istio" {
		t.Fatalf("notified by %v, %v", notified, err)
	}
	for name, want := range map[string]string{"gateway-istio": "41", "appb-waypoint": ""} {
		found, err := kube.CoreV1().Services("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := found.Labels[notifiedLabel]; got != want || found.Labels[GatewayLabel] == "" {
			t.Errorf("Service %s has labels %v", name, found.Labels)
		}
	}
	if notified, err := m.Notify(t.Context(), "default", "unknown"); err != nil || len(notified) != 0 {
		t.Errorf("of a Gateway without Services: %v, %v", notified, err)
	}
}
