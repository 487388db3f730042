package apply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// offline is a client that knows some kinds and has no cluster.
func offline() *Client {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"ConfigMap", "Secret", "Service", "ServiceAccount", "Pod"} {
		mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: kind}, meta.RESTScopeNamespace)
	}
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Namespace"}, meta.RESTScopeRoot)
	mapper.Add(crdKind().WithVersion("v1"), meta.RESTScopeRoot)
	mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"},
		meta.RESTScopeRoot)
	mapper.Add(schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRoleBinding"},
		meta.RESTScopeRoot)
	mapper.Add(schema.GroupVersionKind{Group: admissionGroup, Version: "v1", Kind: "ValidatingWebhookConfiguration"},
		meta.RESTScopeRoot)
	return &Client{lab: "lab", mapper: mapper}
}

func TestObjectsAreLabelledPlacedAndOrdered(t *testing.T) {
	in := objects(t, `
apiVersion: lab.test/v1
kind: Widget
metadata: {name: w}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hook}
webhooks: [{name: h, clientConfig: {caBundle: Zm9v, service: {name: s}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: elsewhere, labels: {app.kubernetes.io/managed-by: Helm}}
status: {replicas: 1}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: b}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: r, namespace: wrongly}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c, creationTimestamp: null, annotations: {lab.opssec.in/adopted: "true", mine: "1"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: space}
---`+crdText)
	before := in[0].DeepCopy()
	objs, err := offline().objects(Set{Name: "part", Namespace: "ns", Objects: in})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, obj := range objs {
		got = append(got, idOf(obj).String())
		if l := obj.GetLabels(); l[LabelManagedBy] != ManagedBy || l[LabelName] != "lab" || l[LabelPart] != "part" {
			t.Errorf("%s has labels %v", idOf(obj), l)
		}
		if text := fmt.Sprint(obj.Object); strings.Contains(text, "caBundle") || strings.Contains(text, "status") ||
			strings.Contains(text, AnnotationAdopted) || strings.Contains(text, "creationTimestamp") {
			t.Errorf("%s keeps what is not the lab's: %v", idOf(obj), obj.Object)
		}
	}
	want := []string{
		"Namespace space", "CustomResourceDefinition widgets.lab.test", "ConfigMap ns/c", "ClusterRole r",
		"ClusterRoleBinding b",
		"Deployment elsewhere/d", "ValidatingWebhookConfiguration hook", "Widget ns/w",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before.Object, in[0].Object); diff != "" {
		t.Errorf("the Set's object was changed: %s", diff)
	}
}

// An object that is not awaited is written like the others, and is not among those that the step waits for.
func TestNotAwaited(t *testing.T) {
	in := objects(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: now}\n---\napiVersion: v1\nkind: "+
		"ConfigMap\nmetadata: {name: later}\n")
	set := Set{
		Name: "part", Objects: in,
		NotAwaited: func(obj *unstructured.Unstructured) bool { return obj.GetName() == "later" },
	}
	writes, err := offline().writes(set)
	if err != nil {
		t.Fatal(err)
	}
	computed := &changeSet{writes: writes}
	if awaited, _ := computed.awaited(); len(computed.objects()) != 2 || len(awaited) != 1 ||
		awaited[0].GetName() != "now" {
		t.Errorf("of %v it waits for %v", computed.objects(), awaited)
	}
}

func TestObjectsRefuses(t *testing.T) {
	one := objects(t, configMap("a", "k", "1"))
	for _, tc := range []struct {
		name, want string
		set        Set
	}{
		{"no name", "part name", Set{Objects: one}},
		{"a name that is no label", "part name", Set{Name: "a b", Objects: one}},
		{"twice", "holds ConfigMap default/a twice", Set{Name: "p", Objects: append(one, one...)}},
		{"nameless", "lacks", Set{Name: "p", Objects: objects(t, "apiVersion: v1\nkind: ConfigMap\n")}},
		{"not JSON", "is not JSON", Set{Name: "p", Objects: []*unstructured.Unstructured{{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": make(chan int),
		}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := offline().objects(tc.set); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// Objects written as Go literals hold ints, at which Kubernetes' own DeepCopy panics.
func TestGoLiteralsAreTaken(t *testing.T) {
	literal := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Service",
		"metadata": map[string]any{"name": "a", "labels": map[string]string{"x": "y"}},
		"spec": map[string]any{
			"ports":       []map[string]any{{"port": 80, "nodePort": int32(30080)}},
			"externalIPs": []string{"192.0.2.1"},
		},
	}}
	objs, err := offline().objects(Set{Name: "p", Objects: []*unstructured.Unstructured{literal}})
	if err != nil {
		t.Fatal(err)
	}
	ports, _, err := unstructured.NestedSlice(objs[0].DeepCopy().Object, "spec", "ports")
	if err != nil || ports[0].(map[string]any)["port"] != int64(80) {
		t.Errorf("%v %v", ports, err)
	}
}

func TestIDNamesIstioGatewaysApart(t *testing.T) {
	for group, want := range map[string]string{
		gatewayGroup: "Gateway d/g", "networking.istio.io": "Gateway.networking.istio.io d/g",
	} {
		if got := (id{schema.GroupKind{Group: group, Kind: "Gateway"}, "d", "g"}).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestNewRefusesNamesThatAreNoLabels(t *testing.T) {
	for _, name := range []string{"", "a b", strings.Repeat("x", 64)} {
		if _, err := New(&rest.Config{Host: "https://192.0.2.1"}, name, Options{}); err == nil {
			t.Errorf("lab %q is accepted", name)
		}
	}
	c, err := New(&rest.Config{Host: "https://192.0.2.1"}, "lab", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Config().QPS != -1 || c.lab != "lab" || c.Client() == nil || c.Kube() == nil {
		t.Errorf("%+v", c)
	}
}
