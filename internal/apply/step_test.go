package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

func TestExplain(t *testing.T) {
	set := Set{Name: "apps", Namespace: "lab", Objects: objects(t, deployment+`
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: edge}
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
`)}
	want := []string{
		"kubectl apply --server-side --field-manager=ambientlab -f apps.yaml   # Deployment a, " +
			"Gateway edge/gateway, Job once",
		"kubectl -n lab rollout status --timeout=10m deployment/a",
		"kubectl -n edge wait --timeout=10m --for=condition=Programmed gateways.gateway.networking.k8s.io/gateway",
		"kubectl -n edge wait --timeout=10m --for=condition=Ready pods " +
			"-l gateway.networking.k8s.io/gateway-name=gateway",
		"kubectl -n lab wait --timeout=10m --for=condition=Complete job/once",
	}
	if diff := cmp.Diff(want, fixed(set).explain(t.Context(), "apps")); diff != "" {
		t.Error(diff)
	}
	for range 7 {
		set.Objects = append(set.Objects, set.Objects[0])
	}
	if got := fixed(set).explain(t.Context(), "apps")[0]; !strings.HasSuffix(got, ", and 4 more") {
		t.Error(got)
	}
}

func TestStepReportsItsErrors(t *testing.T) {
	noCluster, noSet := errors.New("there is no cluster"), errors.New("it cannot be rendered")
	step := Step(func(context.Context) (*Client, error) { return nil, noCluster }, "s", "t", []string{"n"},
		Objects(func(context.Context) (Set, error) { return Set{}, noSet }))
	if _, err := step.Check(t.Context()); !errors.Is(err, noCluster) {
		t.Error(err)
	}
	const unrendered = "[kubectl apply --server-side --field-manager=ambientlab -f s.yaml   # it cannot be rendered]"
	if got := fmt.Sprint(step.Explain()); got != unrendered {
		t.Error(got)
	}
	step = Step(func(context.Context) (*Client, error) { return offline(), nil }, "s", "t", nil,
		Objects(func(context.Context) (Set, error) { return Set{}, noSet }))
	if err := step.Do(t.Context()); !errors.Is(err, noSet) {
		t.Error(err)
	}
}

// What was installed from files that no longer exist can still be deleted.
func TestUndoRendersNothing(t *testing.T) {
	c := live(t, interceptor.Funcs{},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{
			LabelManagedBy: ManagedBy, LabelName: "lab", LabelPart: "s",
		}}})
	c.resources = func(context.Context) ([]*metav1.APIResourceList, error) {
		return []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Kind: "ConfigMap", Namespaced: true, Verbs: metav1.Verbs{"list", "delete"}},
		}}}, nil
	}
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "s", "t", nil,
		Objects(func(context.Context) (Set, error) { return Set{}, errors.New("no such file") }))
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Owned(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestExplainOverlay(t *testing.T) {
	label := objects(t,
		"apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {istio.io/dataplane-mode: ambient}}\n")[0]
	for want, o := range map[string]*unstructured.Unstructured{
		"kubectl apply --server-side --field-manager=ambientlab-o -f s.yaml   " +
			"# Namespace lab, label istio.io/dataplane-mode=ambient": label,
		"kubectl apply --server-side --field-manager=ambientlab-o -f s.yaml   # ConfigMap x/a": objects(t,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: x}\ndata: {k: v}\n")[0],
	} {
		if got := (Overlay{Name: "o", Object: o}).explain(t.Context(), "s")[0]; got != want {
			t.Errorf("got %s", got)
		}
	}
}

// Where there is no cluster a step is not done, which is no error, and previews every object: in the namespace that it
// would get, as far as that is known without an API server, and in the order in which they are created.
func TestStepWithoutCluster(t *testing.T) {
	none := func(context.Context) (*Client, error) {
		return nil, fmt.Errorf("connecting: %w", problem.New(problem.ClusterNone, nil, "there is none"))
	}
	set := Set{Name: "apps", Namespace: "lab", Objects: objects(t, deployment+`
---
apiVersion: example.com/v1
kind: Planet
metadata: {name: mars}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: planets.example.com}
spec: {group: example.com, scope: Cluster, names: {kind: Planet}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: all}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway}
`)}
	service := Overlay{Name: "enrol", Object: objects(t, `
apiVersion: v1
kind: Service
metadata: {name: appb, namespace: lab, labels: {a: b}}
`)[0]}
	for name, tc := range map[string]struct {
		step engine.Step
		want []engine.Change
	}{
		"set": {
			Step(none, "s", "t", nil, fixed(set)),
			[]engine.Change{
				{Object: "CustomResourceDefinition planets.example.com", Action: engine.Create},
				{Object: "ClusterRole all", Action: engine.Create},
				{Object: "Deployment lab/a", Action: engine.Create},
				{Object: "Gateway lab/gateway", Action: engine.Create},
				{Object: "Planet mars", Action: engine.Create},
			},
		},
		"overlay": {
			Step(none, "s", "t", nil, service),
			[]engine.Change{{Object: "Service lab/appb", Action: engine.Update, Detail: "overlay enrol"}},
		},
	} {
		status, err := tc.step.Check(t.Context())
		if err != nil || status.Done || !strings.Contains(status.Message, "there is no cluster yet") {
			t.Errorf("%s: %+v, %v", name, status, err)
		}
		changes, err := tc.step.Preview(t.Context())
		if diff := cmp.Diff(tc.want, changes); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
		if err := tc.step.Do(t.Context()); !problem.Is(err, problem.ClusterNone) {
			t.Errorf("%s is done without a cluster: %v", name, err)
		}
	}
}

// TestBeforePods: what has no pods is applied at once, and what has pods only when BeforePods has succeeded.
func TestBeforePods(t *testing.T) {
	exists := func(c *Client, obj *unstructured.Unstructured) bool {
		live, err := c.fetch(t.Context(), objectList{obj})
		return err == nil && live[0] != nil
	}
	for _, failure := range []error{nil, errors.New("a node is missing")} {
		c := live(t, interceptor.Funcs{})
		c.resources = func(context.Context) ([]*metav1.APIResourceList, error) { return nil, nil }
		list := objects(t, configMap("a", "k", "1")+deployment)
		for _, obj := range list {
			obj.SetNamespace("default")
		}
		asked := 0
		_, err := c.Apply(t.Context(), Set{Name: "p", Objects: list, BeforePods: func(context.Context) error {
			asked++
			if !exists(c, list[0]) || exists(c, list[1]) {
				t.Error("it is not asked between the object without pods and the one with pods")
			}
			return failure
		}})
		if !errors.Is(err, failure) || asked != 1 || exists(c, list[1]) != (failure == nil) {
			t.Errorf("%v, asked %d times, with %v", err, asked, failure)
		}
	}
}
