package apply

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// Preview and Do use the changes that Check has computed: nothing is read or sent to the API server twice.
func TestChangesAreComputedOnce(t *testing.T) {
	var reads, dryRuns, writes, kinds int
	c := offline()
	known := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Labels: map[string]string{
			LabelManagedBy: ManagedBy, LabelName: "lab", LabelPart: "part",
		}},
		Data: map[string]string{"k": "1"},
	}
	c.api = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithRESTMapper(c.mapper).
		WithObjects(known).Build(), interceptor.Funcs{
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption,
		) error {
			reads++
			return w.Get(ctx, key, obj, opts...)
		},
		Apply: func(
			ctx context.Context, w client.WithWatch, obj runtime.ApplyConfiguration, opts ...client.ApplyOption,
		) error {
			o := &client.ApplyOptions{}
			o.ApplyOptions(opts)
			if len(o.DryRun) > 0 {
				dryRuns++
				return nil // the fake answers with the object as it is
			}
			writes++
			return w.Apply(ctx, obj, opts...)
		},
	})
	c.resources = func(context.Context) ([]*metav1.APIResourceList, error) {
		kinds++
		return nil, nil
	}
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "part", "t", nil,
		fixed(Set{Name: "part", Force: true, Objects: objects(t, configMap("a", "k", "2"))}))
	counts := func() [4]int { return [4]int{reads, dryRuns, writes, kinds} }

	for range 2 { // every check reads again
		reads, dryRuns, writes, kinds = 0, 0, 0, 0
		if status, err := step.Check(t.Context()); err != nil || status.Done {
			t.Fatalf("check: %+v %v", status, err)
		}
		if got, want := counts(), [4]int{1, 1, 0, 1}; got != want {
			t.Errorf("check: %v, want %v", got, want)
		}
	}
	if changes, err := step.Preview(t.Context()); err != nil || len(changes) != 1 {
		t.Errorf("preview: %v %v", changes, err)
	}
	if got, want := counts(), [4]int{1, 1, 0, 1}; got != want {
		t.Errorf("a preview after the check: %v, want %v", got, want)
	}
	if _, err := step.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	reads, dryRuns, writes, kinds = 0, 0, 0, 0
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := counts(), [4]int{0, 0, 1, 0}; got != want { // there is no wait for a ConfigMap
		t.Errorf("do after the check: %v, want %v", got, want)
	}
	// What the API server made of the object is known from its answer.
	reads, dryRuns, writes, kinds = 0, 0, 0, 0
	if status, err := step.Check(t.Context()); err != nil || !status.Done {
		t.Errorf("check after do: %+v %v", status, err)
	}
	if got, want := counts(), [4]int{1, 0, 0, 0}; got != want {
		t.Errorf("check after do: %v, want %v", got, want)
	}
	// That is used once, and only of objects that have not changed since.
	reads, dryRuns, writes, kinds = 0, 0, 0, 0
	if _, err := step.Check(t.Context()); err != nil || dryRuns != 1 {
		t.Errorf("a second check: %v %v", counts(), err)
	}
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := &corev1.ConfigMap{}
	if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(known), other); err != nil {
		t.Fatal(err)
	}
	other.Data["k"] = "3"
	if err := c.api.Update(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	reads, dryRuns, writes, kinds = 0, 0, 0, 0
	if status, err := step.Check(t.Context()); err != nil || status.Done || dryRuns != 1 {
		t.Errorf("a check after do and a change: %v %+v %v", counts(), status, err)
	}
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What was computed is used once: a second Do looks for itself.
	reads, dryRuns, writes, kinds = 0, 0, 0, 0
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if dryRuns != 1 || kinds != 1 {
		t.Errorf("a second do: %v", counts())
	}
}
