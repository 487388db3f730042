package sabotage_test

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/manifest"
	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

func every() []sabotage.Sabotage {
	return slices.Concat(sabotage.All(), sabotage.Further(), sabotage.Addons())
}

// cluster has what the lessons make, with -strict, and what Istio and the add-ons bring.
func cluster(t *testing.T) *dynamicfake.FakeDynamicClient {
	t.Helper()
	var all []runtime.Object
	config := session.Config{Namespace: "default", TrustDomain: "cluster.local"}
	for _, l := range []lesson.Lesson{
		lesson.Apps(), lesson.Waypoint(), lesson.Fault(params.DefaultFault()), lesson.Authz("", true),
		lesson.Split(lesson.DefaultWeight), lesson.L4(false),
	} {
		objects, err := l.Objects(config)
		if err != nil {
			t.Fatal(err)
		}
		for _, object := range objects {
			object.SetNamespace("default")
			if l.Name == "waypoint" && object.GetKind() == "Service" { // labels for the one of lesson apps
				all = slices.DeleteFunc(all, func(o runtime.Object) bool {
					made := o.(*unstructured.Unstructured)
					return made.GetKind() == "Service" && made.GetName() == object.GetName()
				})
			}
			all = append(all, object)
		}
	}
	tracing, err := specs.Objects("istio/telemetry.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	addon, err := upstream.New("").Addon(t.Context(), upstream.Jaeger)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range append(tracing, addon...) {
		all = append(all, object)
	}
	all = append(all, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"namespace": "istio-system", "name": ztunnelPod, "labels": map[string]any{"app": "ztunnel"},
			"annotations": map[string]any{"prometheus.io/scrape": "true"},
		},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "istio-proxy"}}},
	}})
	for _, made := range []struct{ kind, namespace, name string }{ // by istiod and by sm:install
		{"Deployment", "default", "appb-waypoint"},
		{"DaemonSet", "istio-system", "ztunnel"},
	} {
		all = append(all, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "apps/v1", "kind": made.kind,
			"metadata": map[string]any{"namespace": made.namespace, "name": made.name},
		}})
	}
	return dynamicfake.NewSimpleDynamicClient(runtime.NewScheme(), all...)
}

// Each way changes objects that exist in a lab, and into objects that the API server accepts.
func TestBreakAndMend(t *testing.T) {
	for _, way := range every() {
		t.Run(way.Name, func(t *testing.T) {
			client := cluster(t)
			get := func(change sabotage.Change) *unstructured.Unstructured {
				namespace := change.Namespace
				if namespace == "" {
					namespace = "default"
				}
				name := change.Object
				if change.Selector != "" {
					name = ztunnelPod
				}
				object, err := client.Tracker().Get(change.Resource, namespace, name)
				if err != nil {
					return nil
				}
				return object.(*unstructured.Unstructured)
			}
			var before []*unstructured.Unstructured
			for _, change := range way.Changes {
				before = append(before, get(change))
			}
			for range 2 { // what is broken may be broken again
				if err := way.Break(t.Context(), client, "default"); err != nil {
					t.Fatal(err)
				}
			}
			for i, change := range way.Changes {
				after := get(change)
				if change.Remove {
					if after != nil {
						t.Errorf("%s %s is left", change.Resource.Resource, change.Object)
					}
					continue
				}
				if after == nil || before[i] != nil && manifestEqual(before[i], after) {
					t.Fatalf("%s %s was not changed", change.Resource.Resource, change.Object)
				}
				if err := manifest.Check(after); err != nil {
					t.Errorf("the API server would refuse it: %v", err)
				}
			}
			for range 2 { // and what is mended, mended
				if err := way.Mend(t.Context(), client, "default"); err != nil {
					t.Fatal(err)
				}
			}
			for _, change := range way.Changes {
				if left := get(change); left != nil && (change.Delete || change.Create != "") {
					t.Errorf("%s %s is left", change.Resource.Resource, change.Object)
				}
			}
		})
	}
}

const ztunnelPod = "ztunnel-x"

func manifestEqual(a, b *unstructured.Unstructured) bool {
	left, _ := a.MarshalJSON()
	right, _ := b.MarshalJSON()
	return slices.Equal(left, right)
}

// The claims are made where the lessons are on, and the names of the ways are unique.
func TestClaims(t *testing.T) {
	seen := map[string]bool{}
	for _, way := range every() {
		if seen[way.Name] {
			t.Errorf("two ways are called %s", way.Name)
		}
		seen[way.Name] = true
		lessons := lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Fault(params.DefaultFault()),
			lesson.Authz("", way.Shows != nil && !way.Shows(lesson.States(lesson.Fault(params.DefaultFault())))))
		if way.Target == "split" || way.Target == "l4" {
			lessons = lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Split(lesson.DefaultWeight),
				lesson.L4(false))
		}
		if way.Target == "telemetry" || way.Target == "install" && way.Changes[0].Object != "ztunnel" {
			lessons = lesson.States(lesson.Apps(), lesson.Waypoint(), lesson.Telemetry())
		}
		for _, id := range way.Claims {
			claims := lesson.Claims()
			i := slices.IndexFunc(claims, func(c probe.Claim) bool { return c.ID == id })
			if i < 0 || !claims[i].When(lessons) {
				t.Errorf("%s: no claim %s is made", way.Name, id)
			}
		}
		if _, known := lesson.Named(way.Target); !known && way.Target != "install" {
			t.Errorf("%s: no target %s", way.Name, way.Target)
		}
	}
}

// An error names the object.
func TestBreakWithoutTheObject(t *testing.T) {
	empty := dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{})
	for _, way := range sabotage.All() {
		if way.Changes[0].Create != "" {
			continue
		}
		if err := way.Break(t.Context(), empty, "default"); err == nil {
			t.Errorf("%s: no error", way.Name)
		}
	}
}
