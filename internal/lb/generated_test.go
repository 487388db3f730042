package lb

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestGenerated(t *testing.T) {
	for kind, want := range map[string]bool{
		"ServiceL2Status": true, "ServiceBGPStatus": true, "ConfigurationState": true, "IPAddressPool": false,
	} {
		obj := &metav1.PartialObjectMetadata{}
		obj.SetGroupVersionKind(schema.GroupVersionKind{Group: "metallb.io", Version: "v1beta1", Kind: kind})
		if got := Generated(obj); got != want {
			t.Errorf("%s: %v", kind, got)
		}
	}
	obj := &metav1.PartialObjectMetadata{}
	obj.SetGroupVersionKind(schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "ServiceL2Status"})
	if Generated(obj) {
		t.Error("of another group")
	}
}
