package mesh

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestTrustDomain(t *testing.T) {
	config := func(mesh string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "istio-system", Name: "istio"},
			Data:       map[string]string{"mesh": mesh},
		}
	}
	for mesh, want := range map[string]string{
		"":                         "cluster.local",
		"rootNamespace: x\n":       "cluster.local",
		"trustDomain: lab.example": "lab.example",
	} {
		got, err := TrustDomain(t.Context(), fake.NewClientset(config(mesh)))
		if err != nil || got != want {
			t.Errorf("%q gives %q, %v; want %q", mesh, got, err, want)
		}
	}
	if got, err := TrustDomain(t.Context(), fake.NewClientset()); err != nil || got != "cluster.local" {
		t.Errorf("without Istio: %q, %v", got, err)
	}
	if _, err := TrustDomain(t.Context(), fake.NewClientset(config("{"))); err == nil {
		t.Error("half a mesh configuration is read")
	}
}

func TestRefusedValues(t *testing.T) {
	refused := RefusedValues(map[string]map[string]any{
		"istiod": {
			"revision": "canary",
			"global": map[string]any{
				"proxy":          map[string]any{"clusterDomain": "example.org"},
				"istioNamespace": "mesh",
			},
			"meshConfig": map[string]any{"trustDomain": "lab.example"},
		},
		"ztunnel": {"revision": ""},
		"cni": {"global": map[string]any{
			"proxy":          map[string]any{"clusterDomain": "cluster.local"},
			"istioNamespace": "istio-system",
		}},
	})
	if got := strings.Join(refused, "\n"); got != strings.Join([]string{
		"istiod.revision=canary: an istiod with a revision ignores the lab's Gateways, " +
			"which have no label istio.io/rev",
		"istiod.global.proxy.clusterDomain=example.org: the lab's host names end in svc.cluster.local",
		"istiod.global.istioNamespace=mesh: the lab installs Istio in namespace istio-system",
	}, "\n") {
		t.Errorf("refused:\n%s", got)
	}
	if len(RefusedValues(nil)) != 0 {
		t.Error("no values are refused")
	}
}
