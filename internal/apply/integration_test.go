package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// sorted makes cmp compare lists of strings regardless of their order.
func sorted() cmp.Option {
	return cmp.Transformer("sorted", func(s []string) []string {
		s = slices.Clone(s)
		slices.Sort(s)
		return s
	})
}

// namespace makes a namespace of the test's own, and says its name.
func namespace(t *testing.T, c *Client) string {
	t.Helper()
	ns, err := c.Kube().CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

func mustApply(t *testing.T, c *Client, set Set) []engine.Change {
	t.Helper()
	changes, err := c.Apply(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func mustDiff(t *testing.T, c *Client, set Set) []engine.Change {
	t.Helper()
	changes, err := c.Diff(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	return changes
}

func short(changes []engine.Change) []string {
	out := []string{}
	for _, c := range changes {
		out = append(out, strings.TrimSpace(c.Action+" "+c.Object+" "+c.Detail))
	}
	return out
}

func TestPruneAndHeal(t *testing.T) {
	c := cluster(t, "prune")
	ns := namespace(t, c)
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("a", "k", "1")+configMap("b", "k", "1"))}
	mustApply(t, c, set)

	// Someone else's change of a field that the lab does not set stays.
	patch := []byte(`{"data":{"theirs":"1"}}`)
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).
		Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := mustDiff(t, c, set); len(got) > 0 {
		t.Errorf("after someone else's own field: %v", short(got))
	}
	if err := c.Kube().CoreV1().ConfigMaps(ns).Delete(t.Context(), "b", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"create ConfigMap " + ns + "/b"}, short(mustApply(t, c, set))); diff != "" {
		t.Error(diff)
	}
	set.Objects = objects(t, configMap("a", "k", "2"))
	want := []string{"update ConfigMap " + ns + "/a data.k: 1 → 2", "delete ConfigMap " + ns + "/b"}
	if diff := cmp.Diff(want, short(mustDiff(t, c, set))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, short(mustApply(t, c, set))); diff != "" {
		t.Error(diff)
	}
	live, err := c.Kube().CoreV1().ConfigMaps(ns).Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil || live.Data["theirs"] != "1" || live.Data["k"] != "2" {
		t.Errorf("%v %v", live.Data, err)
	}
	if got := mustApply(t, c, set); len(got) > 0 {
		t.Errorf("a second run changed %v", short(got))
	}
}

func TestConflictNamesTheOwner(t *testing.T) {
	c := cluster(t, "conflict")
	ns := namespace(t, c)
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("a", "k", "1"))}
	mustApply(t, c, set)
	patch := []byte(`{"data":{"k":"theirs"}}`)
	_, err := c.Kube().CoreV1().ConfigMaps(ns).
		Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "kubectl-edit"})
	if err != nil {
		t.Fatal(err)
	}
	if got := short(mustDiff(t, c, set)); len(got) != 1 ||
		!strings.Contains(got[0], "conflict: field .data.k is owned by kubectl-edit") {
		t.Errorf("diff: %v", got)
	}
	_, err = c.Apply(t.Context(), set)
	if !problem.Is(err, problem.ApplyConflict) ||
		!strings.Contains(err.Error(), "field .data.k is owned by kubectl-edit") {
		t.Errorf("apply: %v", err)
	}
	set.Force = true
	want := []string{"update ConfigMap " + ns + "/a data.k: theirs → 1"}
	if diff := cmp.Diff(want, short(mustApply(t, c, set))); diff != "" {
		t.Error(diff)
	}
	if got := mustDiff(t, c, set); len(got) > 0 {
		t.Errorf("after force: %v", short(got))
	}
}

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: PLURAL.lab.test}
spec:
  group: lab.test
  names: {kind: KIND, plural: PLURAL, singular: SINGULAR, listKind: KINDList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
`

func crd(kind string) string {
	lower := strings.ToLower(kind)
	return strings.NewReplacer("PLURAL", lower+"s", "KIND", kind, "SINGULAR", lower).Replace(widgets)
}

func TestKindsAndTheirObjectsInOneSet(t *testing.T) {
	c := cluster(t, "kinds")
	ns := namespace(t, c)
	set := Set{
		Name: "part", Namespace: ns,
		Objects: objects(t, "apiVersion: lab.test/v1\nkind: Gadget\nmetadata: {name: g}\n---\n"+crd("Gadget")),
	}
	if got := mustDiff(t, c, set); len(got) != 2 {
		t.Errorf("diff before: %v", short(got))
	}
	if got := mustApply(t, c, set); len(got) != 2 {
		t.Errorf("apply: %v", short(got))
	}
	if got := mustDiff(t, c, set); len(got) > 0 {
		t.Errorf("diff after: %v", short(got))
	}
	// The CRD is deleted under our feet, and with it the objects: both come back.
	crds := &unstructured.Unstructured{}
	crds.SetGroupVersionKind(crdKind().WithVersion("v1"))
	crds.SetName("gadgets.lab.test")
	if err := c.Client().Delete(t.Context(), crds); err != nil {
		t.Fatal(err)
	}
	if err := c.waitGone(t.Context(), crds); err != nil {
		t.Fatal(err)
	}
	if got := mustDiff(t, c, set); len(got) != 2 {
		t.Errorf("diff without the CRD: %v", short(got))
	}
	if got := mustApply(t, c, set); len(got) != 2 {
		t.Errorf("healing: %v", short(got))
	}
	got, err := c.Delete(t.Context(), set)
	want := []string{"delete Gadget " + ns + "/g", "delete CustomResourceDefinition gadgets.lab.test"}
	if diff := cmp.Diff(want, short(got)); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestUnknownKindIsAProblemAtOnce(t *testing.T) {
	c := cluster(t, "unknown")
	ns := namespace(t, c)
	start := time.Now()
	set := Set{
		Name: "part", Namespace: ns,
		Objects: objects(t, "apiVersion: lab.test/v1\nkind: Nothing\nmetadata: {name: g}\n"),
	}
	_, err := c.Apply(t.Context(), set)
	if !problem.Is(err, problem.KindUnknown) || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	set.Namespace, set.Objects = "no-such-namespace", objects(t, configMap("a", "k", "1"))
	if got := short(mustDiff(t, c, set)); len(got) != 1 ||
		!strings.Contains(got[0], "namespace no-such-namespace does not exist yet") {
		t.Errorf("diff: %v", got)
	}
	if _, err := c.Apply(t.Context(), set); !problem.Is(err, problem.ApplyRejected) ||
		!strings.Contains(err.Error(), "namespace no-such-namespace does not exist") {
		t.Errorf("apply: %v", err)
	}
}

func TestOverlay(t *testing.T) {
	c := cluster(t, "overlay")
	ns := namespace(t, c)
	o := Overlay{
		Name: "waypoint",
		Object: objects(t, "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: "+ns+
			", labels: {istio.io/use-waypoint: w}}\n")[0],
	}
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "o", "an overlay", nil, o)
	if status, err := step.Check(t.Context()); err != nil || status.Done {
		t.Errorf("before the object: %+v %v", status, err)
	}
	if err := step.Do(t.Context()); !problem.Is(err, problem.ObjectMissing) {
		t.Errorf("without the object: %v", err)
	}
	if err := step.Undo(t.Context()); err != nil {
		t.Errorf("undo without the object: %v", err)
	}
	app := Set{
		Name: "app", Namespace: ns,
		Objects: objects(t,
			"apiVersion: v1\nkind: Service\nmetadata: {name: s, labels: {app: s}}\nspec: {ports: [{port: 80}]}\n"),
	}
	mustApply(t, c, app)
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, err := step.Check(t.Context()); err != nil || !status.Done {
		t.Errorf("after: %+v %v", status, err)
	}
	if got := mustDiff(t, c, app); len(got) > 0 {
		t.Errorf("the overlay disturbs the part: %v", short(got))
	}
	svc, err := c.Kube().CoreV1().Services(ns).Get(t.Context(), "s", metav1.GetOptions{})
	if err != nil || svc.Labels["istio.io/use-waypoint"] != "w" || svc.Labels[LabelPart] != "app" {
		t.Errorf("%v %v", svc.Labels, err)
	}
	if err := step.Undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	svc, err = c.Kube().CoreV1().Services(ns).Get(t.Context(), "s", metav1.GetOptions{})
	if _, there := svc.Labels["istio.io/use-waypoint"]; err != nil || there || svc.Labels["app"] != "s" {
		t.Errorf("after undo: %v %v", svc.Labels, err)
	}
	want := []string{"kubectl apply --server-side --field-manager=ambientlab-waypoint -f o.yaml   " +
		"# Service " + ns + "/s, label istio.io/use-waypoint=w"}
	if !cmp.Equal(
		want,
		step.Explain(),
	) {
		t.Errorf("explain: %q", step.Explain())
	}
}

func TestStepIsDoneOnceAndUndone(t *testing.T) {
	c := cluster(t, "step")
	ns := namespace(t, c)
	set := func(context.Context) (Set, error) {
		return Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("a", "k", "1"))}, nil
	}
	plan := engine.Plan{Name: "p", Title: "a plan", Steps: []engine.Step{
		Step(func(context.Context) (*Client, error) { return c, nil }, "part", "a step", nil, Objects(set)),
	}}
	e := &engine.Engine{}
	first, err := e.Apply(t.Context(), plan)
	if err != nil || first.Steps[0].Outcome != engine.Done || len(first.Steps[0].Changes) != 1 {
		t.Errorf("first: %+v %v", first, err)
	}
	second, err := e.Apply(t.Context(), plan)
	if err != nil || second.Steps[0].Outcome != engine.Unchanged || len(second.Steps[0].Changes) != 0 {
		t.Errorf("second: %+v %v", second, err)
	}
	if _, err := e.Undo(t.Context(), plan); err != nil {
		t.Error(err)
	}
	if owned, err := c.Owned(t.Context()); err != nil || len(owned) > 0 {
		t.Errorf("left: %v %v", owned, err)
	}
}

// What other clients do between a step's Check and its Do is found by Do.
func TestClusterChangesBetweenCheckAndDo(t *testing.T) {
	c := cluster(t, "between")
	ns := namespace(t, c)
	maps := c.Kube().CoreV1().ConfigMaps(ns)
	text := configMap("updated", "k", "1") + configMap("deleted", "k", "1") + configMap("pruned", "k", "1")
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "part", "a step", nil,
		Objects(func(context.Context) (Set, error) {
			return Set{Name: "part", Namespace: ns, Objects: objects(t, text)}, nil
		}))
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	text = configMap("updated", "k", "2") + configMap("deleted", "k", "2")
	check := func() {
		t.Helper()
		if status, err := step.Check(t.Context()); err != nil || status.Done {
			t.Fatalf("check: %+v %v", status, err)
		}
	}
	do := func() engine.Result {
		t.Helper()
		e := engine.Engine{}
		result, err := e.Apply(t.Context(), engine.Plan{Name: "p", Steps: []engine.Step{{ID: "do", Do: step.Do}}})
		if err != nil {
			t.Fatal(err)
		}
		if status, err := step.Check(t.Context()); err != nil || !status.Done {
			t.Errorf("after do: %+v %v", status, err)
		}
		return result
	}

	check()
	patch := []byte(`{"data":{"theirs":"1"}}`)
	if _, err := maps.Patch(t.Context(), "updated", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"deleted", "pruned"} {
		if err := maps.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	theirs := func(name string, labels map[string]string) {
		t.Helper()
		obj := &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Data:       map[string]string{"theirs": "1"},
		}
		if _, err := maps.Create(t.Context(), obj, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	theirs("pruned", nil) // another object of that name
	want := []string{"update ConfigMap " + ns + "/updated data.k: 1 → 2", "create ConfigMap " + ns + "/deleted"}
	if diff := cmp.Diff(want, short(do().Changes()), sorted()); diff != "" {
		t.Error(diff)
	}
	for name, data := range map[string]map[string]string{
		"updated": {"k": "2", "theirs": "1"}, "deleted": {"k": "2"}, "pruned": {"theirs": "1"},
	} {
		live, err := maps.Get(t.Context(), name, metav1.GetOptions{})
		if diff := cmp.Diff(data, live.Data); err != nil || diff != "" || adopted(live) {
			t.Errorf("%s: %v %v\n%s", name, err, live.Annotations, diff)
		}
	}

	// An object that another client creates meanwhile is adopted, or refused if it is another lab's.
	text += configMap("new", "k", "1")
	check()
	theirs("new", nil)
	do()
	if live, err := maps.Get(t.Context(), "new", metav1.GetOptions{}); err != nil || !adopted(live) ||
		live.Data["theirs"] != "1" {
		t.Errorf("created meanwhile: %v %v", live, err)
	}
	text += configMap("taken", "k", "1")
	check()
	theirs("taken", map[string]string{LabelName: "other"})
	if err := step.Do(t.Context()); !problem.Is(err, problem.ObjectOfAnotherLab) {
		t.Errorf("created by another lab meanwhile: %v", err)
	}

	// Fields are set on an object that exists, and never create one.
	overlay := Step(func(context.Context) (*Client, error) { return c, nil }, "o", "an overlay", nil,
		Overlay{Name: "o", Object: objects(t,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: new, namespace: "+ns+", labels: {a: b}}\n")[0]})
	if status, err := overlay.Check(t.Context()); err != nil || status.Done {
		t.Fatalf("%+v %v", status, err)
	}
	if err := maps.Delete(t.Context(), "new", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := overlay.Do(t.Context()); !problem.Is(err, problem.ObjectMissing) {
		t.Errorf("deleted before its overlay: %v", err)
	}
}

// TestManyObjects: objects that are read with a listing, of several pages, are compared as those that are read one by
// one, and among objects of others.
func TestManyObjects(t *testing.T) {
	c := cluster(t, "many")
	ns := namespace(t, c)
	const many = listPage + listFrom
	var text strings.Builder
	for i := range many {
		text.WriteString(configMap(fmt.Sprintf("m-%04d", i), "k", "1"))
	}
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, text.String())}
	theirs := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "m-0007", Namespace: ns}, Data: map[string]string{"theirs": "1"},
	}
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).Create(t.Context(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	step := Step(func(context.Context) (*Client, error) { return c, nil }, "part", "t", nil, fixed(set))
	if status, err := step.Check(t.Context()); err != nil || status.Done ||
		!strings.HasSuffix(status.Message, fmt.Sprintf("and %d more", many-2)) { // one exists, one is named
		t.Errorf("before: %+v %v", status, err)
	}
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, err := step.Check(t.Context()); err != nil || status.Message != fmt.Sprintf("%d objects", many) {
		t.Errorf("after: %+v %v", status, err)
	}
	edit := []byte(`{"data":{"k":"theirs"}}`)
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).
		Patch(t.Context(), "m-0100", types.MergePatchType, edit, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Kube().CoreV1().ConfigMaps(ns).Delete(t.Context(), "m-0549", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	set.Force = true
	want := []string{
		"update ConfigMap " + ns + "/m-0100 data.k: theirs → 1", "create ConfigMap " + ns + "/m-0549",
	}
	if diff := cmp.Diff(want, short(mustDiff(t, c, set))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, short(mustApply(t, c, set)), sorted()); diff != "" {
		t.Error(diff)
	}
	live, err := c.Kube().CoreV1().ConfigMaps(ns).Get(t.Context(), theirs.Name, metav1.GetOptions{})
	if err != nil || live.Data["theirs"] != "1" || live.Data["k"] != "1" || live.Annotations[AnnotationAdopted] == "" {
		t.Errorf("the object of others: %+v %v", live, err)
	}
}
