package specs

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/lesson/names"
)

// data fills every template of every spec.
func data() map[string]any {
	return map[string]any{
		"Namespace": "default", "Percent": 50.0, "Delay": "2s", "Path": "/headers", "Exact": false,
		"IdleTimeout": "500ms",
		"Waypoint":    "cluster.local/ns/default/sa/appb-waypoint",
		"Principals":  []string{"cluster.local/ns/default/sa/appa"},
		"Httpbin":     "httpbin:1", "Fortio": "fortio:1", "ServiceType": "ClusterIP", "NodePort": 30042,
		"GatewayNodePort": 30042, "Workers": 2,
		"WorkerList": make([]struct{}, 2), "CgroupV1": true,
		"Weight": 90, "Rest": 10, "Principal": "cluster.local/ns/default/sa/appa", "HTTP": true,
	}
}

// TestEverySpecIsAccepted renders every spec; Objects decodes each object strictly into the Go type of its kind.
func TestEverySpecIsAccepted(t *testing.T) {
	checked := 0
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == "kind.yaml" || strings.HasSuffix(path, ".md") ||
			(strings.HasPrefix(path, "istio/") && path != "istio/telemetry.yaml") {
			return err
		}
		objects, err := Objects(path, data())
		checked += len(objects)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 12 {
		t.Errorf("only %d objects were checked", checked)
	}
}

// A value that makes a spec mean something else is refused before anything is sent.
func TestObjectsRefusesWhatTheTypeDoesNotTake(t *testing.T) {
	values := data()
	values["Delay"] = "2s\n        fixedDelays: 3s"
	_, err := Objects("lessons/fault/delay.yaml", values)
	if err == nil || !strings.Contains(err.Error(),
		"spec.http[0].fault.delay.fixedDelays is not a known field; "+
			"did you mean spec.http[0].fault.delay.fixedDelay?") {
		t.Errorf("got %v", err)
	}
}

func TestRenderRefusesAHole(t *testing.T) {
	if _, err := Render("lessons/fault/delay.yaml", map[string]any{"Namespace": "default"}); err == nil ||
		!strings.Contains(err.Error(), "lessons/fault/delay.yaml") {
		t.Errorf("got %v, want an error that names the spec", err)
	}
}

func TestRenderQuotesThePath(t *testing.T) {
	for _, match := range []string{"prefix", "exact"} {
		values := data()
		values["Path"], values["Exact"] = "/a: {b}", match == "exact"
		objects, err := Objects("lessons/fault/delay.yaml", values)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := objects[0].MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), `"`+match+`":"/a: {b}"`) {
			t.Errorf("the path was not kept: %s", raw)
		}
	}
}

func TestNobodyLeft(t *testing.T) {
	values := data()
	values["Principals"] = []string(nil)
	objects, err := Objects("lessons/authz/get-only.yaml", values)
	if err != nil {
		t.Fatal(err)
	}
	spec, _ := objects[0].Object["spec"].(map[string]any)
	if rules, isList := spec["rules"].([]any); spec["action"] != "ALLOW" || !isList || len(rules) != 0 {
		t.Errorf("with no caller allowed the policy is %v, want ALLOW with no rule", spec)
	}
}

func TestValuesParse(t *testing.T) {
	for _, name := range []string{"base", "istiod", "cni", "ztunnel", "substitute-istiod", "substitute-cni"} {
		if values, err := Values("istio/" + name + ".yaml"); err != nil || len(values) == 0 {
			t.Errorf("%s: %v, %v", name, values, err)
		}
	}
}

// TestStrictReachesAppbAlone holds what -strict applies to the labels of appb's pods: whatever else lives in the
// namespace, which may be the user's own, keeps its own rules.
func TestStrictReachesAppbAlone(t *testing.T) {
	strict, err := Objects("lessons/authz/strict.yaml", data())
	if err != nil {
		t.Fatal(err)
	}
	app, err := Objects("lessons/apps/appb.yaml", data())
	if err != nil {
		t.Fatal(err)
	}
	var labels map[string]string
	for _, object := range app {
		if object.GetKind() == "Deployment" {
			labels, _, _ = unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
		}
	}
	if len(strict) != 2 || labels["app"] != "appb" {
		t.Fatalf("%d strict policies, appb's pods have labels %v", len(strict), labels)
	}
	for _, object := range strict {
		selected, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector", "matchLabels")
		if len(selected) != 1 || selected["app"] != labels["app"] {
			t.Errorf("%s %s selects %v, want appb's pods alone", object.GetKind(), object.GetName(), selected)
		}
	}
}

// TestSpecsUseTheNames compares the names and images that the specs write out with those in internal/lesson/names.
func TestSpecsUseTheNames(t *testing.T) {
	values := data()
	values["Httpbin"], values["Fortio"] = names.HttpbinImage, names.FortioImage
	found := map[string]bool{}
	err := fs.WalkDir(files, "lessons", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		objects, err := Objects(path, values)
		for _, object := range objects {
			found[object.GetKind()+" "+object.GetName()] = true
			hosts, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "hostnames")
			for _, host := range hosts {
				found["host "+host] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Deployment " + names.AppA, "Deployment " + names.AppB, "Service " + names.AppA, "Service " + names.AppB,
		"ServiceAccount " + names.AppA, "ServiceAccount " + names.AppB, "Gateway " + names.Gateway,
		"Gateway " + names.Waypoint,
		"VirtualService " + names.Delay, "AuthorizationPolicy " + names.GetOnly,
		"AuthorizationPolicy " + names.OnlyViaWaypoint,
		"host " + names.Host, "host " + names.LocalHost,
	} {
		if !found[want] {
			t.Errorf("no spec has %s; they have %v", want, slices.Sorted(maps.Keys(found)))
		}
	}
}
