package apply

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestForeign(t *testing.T) {
	deployment := func(name string, labels map[string]string, owner ...metav1.OwnerReference) client.Object {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "default", UID: types.UID("uid-" + name), Labels: labels, OwnerReferences: owner,
		}}
	}
	owned := func(name string) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: types.UID("uid-" + name)}
	}
	ours := map[string]string{LabelName: "lab"}
	c := live(t, interceptor.Funcs{},
		deployment("ours", ours), deployment("theirs", nil), deployment("replaced", nil),
		deployment("of-ours", nil, owned("ours")), deployment("of-theirs", ours, owned("theirs")))
	by := func(manager, subresource string) []metav1.ManagedFieldsEntry {
		return []metav1.ManagedFieldsEntry{{Manager: manager, Subresource: subresource}}
	}
	deploymentKind := schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
	core := func(kind string) schema.GroupVersionKind { return schema.GroupVersionKind{Version: "v1", Kind: kind} }
	gatewayClass := schema.GroupVersionKind{Group: gatewayGroup, Version: "v1", Kind: "GatewayClass"}
	other := owned("replaced")
	other.UID = "an older one"
	now := metav1.Now()
	for name, tc := range map[string]struct {
		kind schema.GroupVersionKind
		obj  metav1.ObjectMeta
		want bool
	}{
		"someone's":                    {deploymentKind, metav1.ObjectMeta{ManagedFields: by("kubectl-create", "")}, true},
		"the lab's":                    {deploymentKind, metav1.ObjectMeta{Labels: ours}, false},
		"adopted by the lab":           {deploymentKind, metav1.ObjectMeta{Labels: ours, Annotations: map[string]string{AnnotationAdopted: "true"}}, true},
		"another lab's":                {deploymentKind, metav1.ObjectMeta{Labels: map[string]string{LabelName: "other"}}, true},
		"on its way out":               {deploymentKind, metav1.ObjectMeta{DeletionTimestamp: &now}, false},
		"a canary of Flagger's":        {deploymentKind, metav1.ObjectMeta{ManagedFields: by("controller", "")}, true},
		"somebody's speaker":           {core("ConfigMap"), metav1.ObjectMeta{ManagedFields: by("speaker", "")}, true},
		"of the lab's":                 {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owned("ours")}}, false},
		"of somebody's":                {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owned("theirs")}}, true},
		"of something of the lab's":    {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owned("of-ours")}}, false},
		"of something of somebody's":   {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owned("of-theirs")}}, true},
		"of something gone":            {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{owned("gone")}}, false},
		"of something made anew":       {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{other}}, false},
		"of a kind that is not served": {core("Pod"), metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{APIVersion: "x.test/v1", Kind: "X", Name: "x"}}}, true},
		"istiod's class":               {gatewayClass, metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "")}, false},
		"a class istiod reported on":   {gatewayClass, metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "status")}, true},
		"a Deployment by istiod":       {deploymentKind, metav1.ObjectMeta{ManagedFields: by("pilot-discovery", "")}, true},
		"MetalLB's status":             {schema.GroupVersionKind{Group: "metallb.io", Version: "v1beta1", Kind: "ServiceL2Status"}, metav1.ObjectMeta{}, false},
		"a pool by a controller":       {schema.GroupVersionKind{Group: "metallb.io", Version: "v1beta1", Kind: "IPAddressPool"}, metav1.ObjectMeta{ManagedFields: by("controller", "")}, true},
		"a Secret":                     {core("Secret"), metav1.ObjectMeta{Name: "password"}, true},
		"a plugged-in authority":       {core("Secret"), metav1.ObjectMeta{Name: "cacerts", ManagedFields: by("kubectl-create", "")}, true},
		"istiod's authority":           {core("Secret"), metav1.ObjectMeta{Name: "istio-ca-secret", ManagedFields: by("pilot-discovery", "")}, false},
		"istiod's election":            {core("ConfigMap"), metav1.ObjectMeta{Name: "istio-leader", ManagedFields: by("pilot-discovery", "")}, false},
		"somebody's ConfigMap":         {core("ConfigMap"), metav1.ObjectMeta{Name: "settings"}, true},
		"Kubernetes' root":             {core("ConfigMap"), metav1.ObjectMeta{Name: "kube-root-ca.crt"}, false},
		"istiod's root":                {core("ConfigMap"), metav1.ObjectMeta{Name: "istio-ca-root-cert", Labels: map[string]string{"istio.io/config": "true"}}, false},
		"a root of that name":          {core("ConfigMap"), metav1.ObjectMeta{Name: "istio-ca-root-cert"}, true},
		"the default account":          {core("ServiceAccount"), metav1.ObjectMeta{Name: "default"}, false},
		"another account":              {core("ServiceAccount"), metav1.ObjectMeta{Name: "builder"}, true},
	} {
		obj := &metav1.PartialObjectMetadata{ObjectMeta: tc.obj}
		obj.SetGroupVersionKind(tc.kind)
		obj.SetNamespace("default")
		got, err := c.foreign(t.Context(), obj)
		if err != nil || got != tc.want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
}

// A stored version that is not served must not hide the objects.
func TestInstancesInAServedVersion(t *testing.T) {
	crd := objects(t, `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tools.lab.test}
spec:
  group: lab.test
  names: {kind: Tool}
  versions:
  - {name: v1, served: true, storage: false}
  - {name: v2, served: false, storage: true}
`)[0]
	got := instances(crd)
	if len(got) != 1 || got[0].Version != "v1" {
		t.Errorf("got %v", got)
	}
}
