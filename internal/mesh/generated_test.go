package mesh

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestGenerated(t *testing.T) {
	by := func(manager, subresource string) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{{Manager: manager, Subresource: subresource}}
	}
	core := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	class := schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: "GatewayClass"}
	root := map[string]string{"istio.io/config": "true"}
	for name, tc := range map[string]struct {
		kind schema.GroupVersionKind
		obj  metav1.ObjectMeta
		want bool
	}{
		"istiod's class": {
			class,
			metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "")},
			true,
		},
		"a class whose status istiod has set": {
			class,
			metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "status")},
			false,
		},
		"a Deployment that istiod has made": {
			schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
			metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "")},
			false,
		},
		"istiod's certificate authority": {
			core("Secret"),
			metav1.ObjectMeta{Name: "istio-ca-secret", ManagedFields: by("pilot-discovery", "")},
			true,
		},
		"a plugged-in certificate authority": {
			core("Secret"),
			metav1.ObjectMeta{Name: "cacerts", ManagedFields: by("kubectl-create", "")},
			false,
		},
		"a Secret": {core("Secret"), metav1.ObjectMeta{Name: "password"}, false},
		"a leader election": {
			core("ConfigMap"),
			metav1.ObjectMeta{Name: "istio-leader", ManagedFields: by("pilot-discovery", "")},
			true,
		},
		"a ConfigMap": {core("ConfigMap"), metav1.ObjectMeta{Name: "settings"}, false},
		"the root certificates": {
			core("ConfigMap"),
			metav1.ObjectMeta{Name: "istio-ca-root-cert", Labels: root},
			true,
		},
		"another ConfigMap with that name": {
			core("ConfigMap"),
			metav1.ObjectMeta{Name: "istio-ca-root-cert"},
			false,
		},
		"another ConfigMap with istiod's label": {
			core("ConfigMap"),
			metav1.ObjectMeta{Name: "mine", Labels: root},
			false,
		},
	} {
		obj := &metav1.PartialObjectMetadata{ObjectMeta: tc.obj}
		obj.SetGroupVersionKind(tc.kind)
		if got := Generated(obj); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
