package apply

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A namespace that an overlay has created is deleted with it when it is empty. One that existed before, or that others
// use by now, only loses what the overlay has set.
func TestOverlayDeletesItsNamespace(t *testing.T) {
	c := cluster(t, "overlaid")
	overlay := func(name string) Overlay {
		return Overlay{Name: "mesh", Create: true, Object: objects(t,
			"apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+", labels: {in: mesh}}\n")[0]}
	}
	namespaces := c.Kube().CoreV1().Namespaces()
	older := namespace(t, c)
	for _, name := range []string{older, "overlaid-empty", "overlaid-used"} {
		step := Step(func(context.Context) (*Client, error) { return c, nil }, "mesh", "an overlay", nil, overlay(name))
		if err := step.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if status, err := step.Check(t.Context()); err != nil || !status.Done {
			t.Errorf("%s, set already: %v %v", name, status, err)
		}
	}
	theirs := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}}
	if _, err := c.Kube().CoreV1().ConfigMaps("overlaid-used").
		Create(t.Context(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	// It names another namespace by now: the fields are removed from every object of the kind.
	if err := overlay("another").remove(t.Context(), c, "mesh"); err != nil {
		t.Fatal(err)
	}
	if _, err := namespaces.Get(t.Context(), "overlaid-empty", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the empty namespace is still there: %v", err)
	}
	for _, name := range []string{older, "overlaid-used"} {
		ns, err := namespaces.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, set := ns.Labels["in"]; set || len(ns.Annotations) > 0 || ns.DeletionTimestamp != nil {
			t.Errorf("%s: labels %v, annotations %v", name, ns.Labels, ns.Annotations)
		}
	}
}
