package specs

import (
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingalpha "istio.io/client-go/pkg/apis/networking/v1alpha3"
	security "istio.io/client-go/pkg/apis/security/v1"
	telemetry "istio.io/client-go/pkg/apis/telemetry/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/lesson/names"
)

// data fills every template of every spec.
func data() map[string]any {
	return map[string]any{
		"Namespace": "default", "Percent": 50.0, "Delay": "2s", "Path": "/headers", "Exact": false, "Principals": []string{"cluster.local/ns/default/sa/appa"},
		"Httpbin": "httpbin:1", "Fortio": "fortio:1", "ServiceType": "ClusterIP", "Workers": 2, "WorkerList": make([]struct{}, 2), "CgroupV1": true,
	}
}

// TestSpecsAreWhatTheirTypesSay decodes every object strictly into its project's own Go type: a field that Istio, the
// Gateway API or Kubernetes does not know would otherwise be dropped in silence.
func TestSpecsAreWhatTheirTypesSay(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, gateway.Install, networking.AddToScheme, networkingalpha.AddToScheme, security.AddToScheme, telemetry.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	checked := 0
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == "kind.yaml" || (strings.HasPrefix(path, "istio/") && path != "istio/telemetry.yaml") {
			return err
		}
		objects, err := Objects(path, data())
		if err != nil {
			return err
		}
		for _, object := range objects {
			raw, err := yaml.Marshal(object.Object)
			if err != nil {
				return err
			}
			if _, _, err := decoder.Decode(raw, nil, nil); err != nil {
				t.Errorf("%s: %s %s: %v", path, object.GetKind(), object.GetName(), err)
			}
			checked++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 12 {
		t.Errorf("only %d objects were checked", checked)
	}
}

func TestRenderRefusesAHole(t *testing.T) {
	if _, err := Render("lessons/fault/delay.yaml", map[string]any{"Namespace": "default"}); err == nil || !strings.Contains(err.Error(), "lessons/fault/delay.yaml") {
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
		t.Errorf("with nobody allowed the policy is %v, want ALLOW with no rule", spec)
	}
}

func TestDecodeNamesWhatIsNoObject(t *testing.T) {
	_, err := Decode(strings.NewReader("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\nhello: world\n"))
	if err == nil || !strings.Contains(err.Error(), "document 2") {
		t.Errorf("got %v, want an error that names document 2", err)
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
		"ServiceAccount " + names.AppA, "ServiceAccount " + names.AppB, "Gateway " + names.Gateway, "Gateway " + names.Waypoint,
		"VirtualService " + names.Delay, "AuthorizationPolicy " + names.GetOnly, "AuthorizationPolicy " + names.OnlyViaWaypoint,
		"host " + names.Host,
	} {
		if !found[want] {
			t.Errorf("no spec has %s; they have %v", want, slices.Sorted(maps.Keys(found)))
		}
	}
}
