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
		"kubectl apply --server-side --field-manager=ambientlab -f apps.yaml   # Deployment a, Gateway edge/gateway, Job once",
		"kubectl -n lab rollout status deployment/a",
		"kubectl -n edge wait --for=condition=Programmed gateway/gateway",
		"kubectl -n lab wait --for=condition=Complete job/once",
	}
	if diff := cmp.Diff(want, Explain(set)); diff != "" {
		t.Error(diff)
	}
	for range 7 {
		set.Objects = append(set.Objects, set.Objects[0])
	}
	if got := Explain(set)[0]; !strings.HasSuffix(got, ", and 4 more") {
		t.Error(got)
	}
}

func TestStepReportsWhatItCannotHave(t *testing.T) {
	noCluster, noSet := errors.New("there is no cluster"), errors.New("it cannot be rendered")
	step := Step(func(context.Context) (*Client, error) { return nil, noCluster }, "s", "t", []string{"n"},
		func(context.Context) (Set, error) { return Set{}, noSet })
	if _, err := step.Check(t.Context()); !errors.Is(err, noCluster) {
		t.Error(err)
	}
	if got := fmt.Sprint(step.Explain()); got != "[kubectl apply --server-side -f s.yaml]" {
		t.Error(got)
	}
	step = Step(func(context.Context) (*Client, error) { return offline(), nil }, "s", "t", nil,
		func(context.Context) (Set, error) { return Set{}, noSet })
	if err := step.Do(t.Context()); !errors.Is(err, noSet) {
		t.Error(err)
	}
}

// What was installed from files that are gone by now can still be taken away.
func TestUndoRendersNothing(t *testing.T) {
	c := live(t, interceptor.Funcs{}, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{
		LabelManagedBy: ManagedBy, LabelName: "lab", LabelPart: "s",
	}}})
	c.resources = func(context.Context) ([]*metav1.APIResourceList, error) {
		return []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Kind: "ConfigMap", Namespaced: true, Verbs: metav1.Verbs{"list", "delete"}},
		}}}, nil
	}
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "s", "t", nil,
		func(context.Context) (Set, error) { return Set{}, errors.New("no such file") })
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := c.Owned(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestExplainOverlay(t *testing.T) {
	label := objects(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {istio.io/dataplane-mode: ambient}}\n")[0]
	for want, o := range map[string]*unstructured.Unstructured{
		"kubectl label namespace lab istio.io/dataplane-mode=ambient": label,
		"kubectl -n x apply --server-side --field-manager=ambientlab-o -f o.yaml   # ConfigMap x/a": objects(t,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: x}\ndata: {k: v}\n")[0],
	} {
		if got := explainOverlay(Overlay{Name: "o", Object: o}); got != want {
			t.Errorf("got %s", got)
		}
	}
}
