package upstream

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/problem"
)

func find(t *testing.T, objs []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, o := range objs {
		if o.GetKind() == kind && o.GetName() == name {
			return o
		}
	}
	t.Fatalf("no %s %s", kind, name)
	return nil
}

func TestIstioGolden(t *testing.T) {
	rendered, err := New("").Istio(t.Context(), IstioValues{KubeVersion: "v1.36.4"})
	if err != nil {
		t.Fatal(err)
	}
	for _, component := range Components() {
		t.Run(component, func(t *testing.T) {
			golden(t, "istio-"+component+".txt", list(rendered[component]))
		})
	}
}

func TestIstioIsStampedAndFailsClosed(t *testing.T) {
	u := New("")
	rendered, err := u.Istio(t.Context(), IstioValues{})
	if err != nil {
		t.Fatal(err)
	}
	for component, objs := range rendered {
		for _, o := range objs {
			if v, ok := o.GetLabels()["app.kubernetes.io/version"]; ok && v != IstioVersion {
				t.Errorf("%s: %s %s is labelled version %s", component, o.GetKind(), o.GetName(), v)
			}
			if o.GetKind() != "ValidatingWebhookConfiguration" {
				continue
			}
			hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
			for _, h := range hooks {
				if got := h.(map[string]any)["failurePolicy"]; got != "Fail" {
					t.Errorf("%s: webhook %s has failurePolicy %v", component, o.GetName(), got)
				}
			}
		}
	}
	for _, image := range Images(append(rendered[Istiod], append(rendered[CNI], rendered[Ztunnel]...)...)) {
		if !strings.HasPrefix(image, "docker.io/istio/") || !strings.HasSuffix(image, ":1.31.4-distroless") {
			t.Errorf("image %s", image)
		}
	}
}

func TestIstioValuesReachTheObjects(t *testing.T) {
	istiod := map[string]any{
		"global":    map[string]any{"proxy": map[string]any{"logLevel": "debug"}, "hub": "example.test/mesh"},
		"resources": map[string]any{"requests": map[string]any{"cpu": "77m"}},
		"env":       map[string]any{"PILOT_ENABLE_ALPN_FILTER": "false"},
	}
	rendered, err := New("").Istio(t.Context(), IstioValues{Istiod: istiod, Namespace: "mesh"})
	if err != nil {
		t.Fatal(err)
	}
	deployment := find(t, rendered[Istiod], "Deployment", "istiod")
	if deployment.GetNamespace() != "mesh" {
		t.Errorf("istiod is in namespace %q", deployment.GetNamespace())
	}
	text, _ := deployment.MarshalJSON()
	for _, want := range []string{"77m", "example.test/mesh/pilot:1.31.4-distroless", "PILOT_ENABLE_ALPN_FILTER"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("istiod's Deployment lacks %s", want)
		}
	}
	if rendered[Base][0].GetName() != "mesh" {
		t.Errorf("base begins with %s", rendered[Base][0].GetName())
	}
	if len(istiod["global"].(map[string]any)) != 2 || istiod["profile"] != nil {
		t.Errorf("the caller's values were changed: %v", istiod)
	}
}

func TestIstioRefuses(t *testing.T) {
	for name, values := range map[string]map[string]any{
		"retired hub":        {"global": map[string]any{"hub": "registry.istio.io/release"}},
		"retired mirror":     {"hub": "gcr.io/istio-release"},
		"retired image":      {"containers": []any{map[string]any{"image": "gcr.io/istio-release/pilot:1.31.4"}}},
		"another profile":    {"profile": "demo"},
		"two profiles":       {"profile": "ambient", "global": map[string]any{"profile": "demo"}},
		"hub under a scalar": {"global": "none"},
		"unknown platform":   {"global": map[string]any{"platform": "toaster"}},
		"values of wrong type": {
			"global":   map[string]any{"imagePullSecrets": map[string]any{"a": 1.5}},
			"defaults": map[string]any{"x": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New("").Istio(t.Context(), IstioValues{Istiod: values})
			if !problem.Is(err, problem.SettingInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestManifestsGolden(t *testing.T) {
	u := New("")
	objs, err := u.GatewayAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "gateway-api.txt", list(objs))
	for _, o := range objs {
		if got := o.GetAnnotations()["gateway.networking.k8s.io/channel"]; got != "standard" {
			t.Errorf("%s is of channel %q", o.GetName(), got)
		}
	}
	if objs, err = u.MetalLB(t.Context()); err != nil {
		t.Fatal(err)
	}
	golden(t, "metallb.txt", list(objs))
	for _, name := range Addons() {
		if objs, err = u.Addon(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		golden(t, "addon-"+name+".txt", list(objs))
	}
}

func TestKialiFindsItsNeighbours(t *testing.T) {
	u := New("")
	services := func(others ...string) (map[string]any, string) {
		t.Helper()
		objs, err := u.Addon(t.Context(), Kiali, others...)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := unstructured.NestedString(find(t, objs, "ConfigMap", "kiali").Object, "data", "config.yaml")
		var config map[string]any
		if err := yaml.Unmarshal([]byte(text), &config); err != nil {
			t.Fatal(err)
		}
		sum, _, _ := unstructured.NestedString(find(t, objs, "Deployment", "kiali").Object,
			"spec", "template", "metadata", "annotations", "checksum/config")
		return config["external_services"].(map[string]any), sum
	}
	all, sumAll := services()
	if got := all["tracing"].(map[string]any)["use_waypoint_name"]; got != true {
		t.Errorf("tracing: %v", all["tracing"])
	}
	if got := all["grafana"].(map[string]any)["internal_url"]; got != "http://grafana.istio-system:3000" {
		t.Errorf("grafana: %v", all["grafana"])
	}
	if got := all["grafana"].(map[string]any)["external_url"]; got != "http://localhost:3000" {
		t.Errorf("Kiali has no address of Grafana for a browser: %v", all["grafana"])
	}
	if all["prometheus"] == nil || all["istio"] == nil {
		t.Errorf("the shipped configuration is gone: %v", all)
	}
	alone, sumAlone := services(Prometheus)
	if got := alone["tracing"].(map[string]any)["enabled"]; got != false {
		t.Errorf("tracing without Jaeger: %v", alone["tracing"])
	}
	if sumAll == sumAlone || len(sumAll) != 64 {
		t.Errorf("the checksums %q and %q do not follow the configuration", sumAll, sumAlone)
	}
	if _, err := u.Addon(t.Context(), "loki"); !problem.Is(err, problem.SettingInvalid) {
		t.Errorf("unknown add-on: %v", err)
	}
}

// Kiali's objects give the version of its image, which Kiali shows as its own.
func TestKialiShowsItsVersion(t *testing.T) {
	objs, err := New("").Addon(t.Context(), Kiali)
	if err != nil {
		t.Fatal(err)
	}
	labels := 0
	for _, o := range objs {
		text, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), `"v2.27`) || strings.Contains(string(text), ": v2.27") {
			t.Errorf("%s %s gives the version that was shipped", o.GetKind(), o.GetName())
		}
		labels += strings.Count(string(text), `"app.kubernetes.io/version":"`+kialiVersion+`"`)
	}
	if labels < 5 {
		t.Errorf("only %d labels give the version %s", labels, kialiVersion)
	}
}

// The dashboards that Kiali links to are those of the Grafana add-on.
func TestKialiLinksToDashboardsThatExist(t *testing.T) {
	objs, err := New("").Addon(t.Context(), Grafana)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, o := range objs {
		data, _, _ := unstructured.NestedStringMap(o.Object, "data")
		for _, text := range data {
			all.WriteString(text)
		}
	}
	for _, name := range Dashboards() {
		if !strings.Contains(strings.ReplaceAll(all.String(), `": "`, `":"`), `"title":"`+name+`"`) {
			t.Errorf("the Grafana add-on has no dashboard %q", name)
		}
	}
}

// MetalLB's metrics need a token, so nothing asks a plain Prometheus to read them.
func TestMetalLBIsNotScraped(t *testing.T) {
	objs, err := New("").MetalLB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objs {
		text, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "prometheus.io/scrape") {
			t.Errorf("%s %s is annotated for Prometheus", o.GetKind(), o.GetName())
		}
	}
}

// An object belongs to one part of the lab: two parts that hold the same one would take it from each other at every
// run.
func TestNoObjectIsInTwoParts(t *testing.T) {
	u := New("")
	parts, err := u.Istio(t.Context(), IstioValues{})
	if err != nil {
		t.Fatal(err)
	}
	if parts["metallb"], err = u.MetalLB(t.Context()); err != nil {
		t.Fatal(err)
	}
	if parts["gateway-api"], err = u.GatewayAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range Addons() {
		if parts[name], err = u.Addon(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	owner := map[string]string{}
	for part, objs := range parts {
		for _, o := range objs {
			id := o.GroupVersionKind().GroupKind().String() + " " + o.GetNamespace() + "/" + o.GetName()
			if other, ok := owner[id]; ok {
				t.Errorf("%s is in %s and in %s", id, other, part)
			}
			owner[id] = part
		}
	}
}
