package apply

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/problem"
)

// What a controller makes for the lab's objects may have their labels: istiod copies those of a Gateway to the
// Deployment and the Service that it makes. They are not pruned with the part, and are deleted with their owner.
func TestOwnedObjectsAreLeftToTheirOwner(t *testing.T) {
	c := cluster(t, "owned-by-controller")
	ns := namespace(t, c)
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("owner", "k", "1"))}
	mustApply(t, c, set)
	owner, err := c.Kube().CoreV1().ConfigMaps(ns).Get(t.Context(), "owner", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Name: "made", Labels: owner.Labels,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID}},
	}}
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).Create(t.Context(), made, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := append(mustDiff(t, c, set), mustApply(t, c, set)...); len(got) > 0 {
		t.Errorf("a second run would change %v", short(got))
	}
	if got, err := c.Delete(t.Context(), set); err != nil || len(got) != 1 {
		t.Errorf("%v %v", short(got), err)
	}
}

func TestAdoptedStays(t *testing.T) {
	c := cluster(t, "adopt")
	ns := namespace(t, c)
	theirs := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{"team": "x"}},
		Data:       map[string]string{"k": "1", "own": "2"},
	}
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).Create(t.Context(), theirs, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	set := Set{
		Name: "part", Namespace: ns,
		Objects: objects(t,
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {k: '1', added: '3'}\n---\n"+
				configMap("mine", "k", "1")),
	}
	mustApply(t, c, set)
	if got := mustDiff(t, c, set); len(got) > 0 {
		t.Errorf("a second run would change %v", short(got))
	}
	got, err := c.Delete(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"update ConfigMap " + ns + "/a fields of the lab removed: the object existed before the lab",
		"delete ConfigMap " + ns + "/mine",
	}
	if diff := cmp.Diff(want, short(got), sorted()); diff != "" {
		t.Error(diff)
	}
	live, err := c.Kube().CoreV1().ConfigMaps(ns).Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"k": "1", "own": "2"}, live.Data); diff != "" {
		t.Errorf("data: %s", diff)
	}
	if diff := cmp.Diff(map[string]string{"team": "x"}, live.Labels); diff != "" || len(live.Annotations) > 0 {
		t.Errorf("labels: %s, annotations: %v", diff, live.Annotations)
	}
	if again, err := c.Delete(t.Context(), set); err != nil || len(again) > 0 {
		t.Errorf("a second delete: %v %v", short(again), err)
	}
	if _, err := cluster(t, "another").Apply(t.Context(), set); err != nil {
		t.Errorf("another lab, after the first is gone: %v", err)
	}
	if _, err := c.Apply(t.Context(), set); !problem.Is(err, problem.ObjectOfAnotherLab) {
		t.Errorf("an object of another lab: %v", err)
	}
}

func TestWhatOthersNeedStays(t *testing.T) {
	c := cluster(t, "inuse")
	set := Set{
		Name: "part",
		Objects: objects(t,
			crd("Tool")+"apiVersion: v1\nkind: Namespace\nmetadata: {name: inuse-shared}\n---\napiVersion: v1\nkind: "+
				"Namespace\nmetadata: {name: inuse-own}\n---\n"+
				"apiVersion: v1\nkind: Namespace\nmetadata: {name: inuse-secret}\n---\napiVersion: v1\nkind: "+
				"Namespace\nmetadata: {name: inuse-custom}\n"),
	}
	mustApply(t, c, set)
	ns := namespace(t, c)
	tool := objects(t, "apiVersion: lab.test/v1\nkind: Tool\nmetadata: {name: theirs, namespace: "+ns+"}\n")[0]
	if err := c.Client().Create(t.Context(), tool); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "theirs"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	awaitAccount(t, c, "inuse-shared")
	if _, err := c.Kube().CoreV1().Pods("inuse-shared").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "password"}}
	if _, err := c.Kube().CoreV1().Secrets("inuse-secret").
		Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	custom := objects(t, "apiVersion: lab.test/v1\nkind: Tool\nmetadata: {name: theirs, namespace: inuse-custom}\n")[0]
	if err := c.Client().Create(t.Context(), custom); err != nil {
		t.Fatal(err)
	}
	got, err := c.Delete(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"delete Namespace inuse-own",
		"update Namespace inuse-secret left in place: Secret inuse-secret/password is not the lab's and needs it",
		"update Namespace inuse-custom left in place: Tool inuse-custom/theirs is not the lab's and needs it",
		"update CustomResourceDefinition tools.lab.test left in place: " +
			"Tool inuse-custom/theirs and 1 more are not the lab's and need it",
		"update Namespace inuse-shared left in place: Pod inuse-shared/theirs is not the lab's and needs it",
	}
	if diff := cmp.Diff(want, short(got), sorted()); diff != "" {
		t.Error(diff)
	}
	if owned, err := c.Owned(t.Context()); err != nil || len(owned) > 0 {
		t.Errorf("still labelled: %v %v", owned, err)
	}
}

// awaitAccount waits for the ServiceAccount that a new namespace gets, without which no pod is accepted.
func awaitAccount(t *testing.T, c *Client, ns string) {
	t.Helper()
	account := objects(t, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: "+ns+"}\n")
	if err := c.waitUntil(t.Context(), c.scopesOf(account), func(ctx context.Context) (bool, error) {
		live, err := c.get(ctx, account[0])
		return live != nil, err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestDeleteStuckNamesTheFinalizer(t *testing.T) {
	c := cluster(t, "stuck")
	ns := namespace(t, c)
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("a", "k", "1"))}
	mustApply(t, c, set)
	patch := []byte(`{"metadata":{"finalizers":["lab.test/hold"]}}`)
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).
		Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Delete(ctx, set)
	if !problem.Is(err, problem.DeleteStuck) ||
		!strings.Contains(err.Error(), "waits for its finalizers lab.test/hold") {
		t.Errorf("got %v", err)
	}
	// An apply sees the old object out before it makes the new one.
	done := make(chan error, 1)
	go func() {
		_, err := c.Apply(t.Context(), set)
		done <- err
	}()
	patch = []byte(`{"metadata":{"finalizers":null}}`)
	if _, err := c.Kube().CoreV1().ConfigMaps(ns).
		Patch(t.Context(), "a", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := mustDiff(t, c, set); len(got) > 0 {
		t.Errorf("%v", short(got))
	}
}
