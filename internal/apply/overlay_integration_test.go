package apply

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
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

// TestOverlayLabelsOfOthers removes an overlay whose labels were set with kubectl as well, or alone: they go where the
// overlay is exclusive and stay where it is not.
func TestOverlayLabelsOfOthers(t *testing.T) {
	c := cluster(t, "labels-of-others")
	name := namespace(t, c)
	configs := c.Kube().CoreV1().ConfigMaps(name)
	for title, test := range map[string]struct{ exclusive, alone, stays bool }{
		"exclusive, both":     {exclusive: true},
		"exclusive, alone":    {exclusive: true, alone: true},
		"not exclusive, both": {stays: true},
	} {
		t.Run(title, func(t *testing.T) {
			made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
				GenerateName: "enrolled-", Labels: map[string]string{"other": "kept"},
			}}
			made, err := configs.Create(t.Context(), made, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			overlay := Overlay{
				Name: "enrol", Exclusive: test.exclusive,
				Object: objects(t, "apiVersion: v1\nkind: ConfigMap\n"+
					"metadata: {name: "+made.Name+", namespace: "+name+", labels: {use: waypoint}}\n")[0],
			}
			if _, err := configs.Patch(
				t.Context(), made.Name, types.MergePatchType, []byte(`{"metadata":{"labels":{"use":"waypoint"}}}`),
				metav1.PatchOptions{FieldManager: "kubectl-label"},
			); err != nil {
				t.Fatal(err)
			}
			if !test.alone {
				connect := func(context.Context) (*Client, error) { return c, nil }
				if err := Step(connect, "enrol", "an overlay", nil, overlay).Do(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := overlay.remove(t.Context(), c, "enrol"); err != nil {
				t.Fatal(err)
			}
			left, err := configs.Get(t.Context(), made.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, has := left.Labels["use"]; has != test.stays || left.Labels["other"] != "kept" {
				t.Errorf("labels are %v", left.Labels)
			}
		})
	}
}
