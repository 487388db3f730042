package lab

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
)

// keepModules lets the go command find its downloads although a desk has a home folder of its own.
func keepModules(t *testing.T) {
	t.Helper()
	folder, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOMODCACHE", strings.TrimSpace(string(folder)))
}

// TestManifestsOfTheLab: an object that a part of the lab applies is refused by name before anything is touched.
func TestManifestsOfTheLab(t *testing.T) {
	keepModules(t)
	engine := newEngine()
	d := newDesk(t, &engine, "SM_MANIFESTS=testdata/manifests/own")
	err := d.Install(t.Context())
	refused(t, "install", err, problem.SettingInvalid,
		"testdata/manifests/own/own.yaml: Telemetry istio-system/mesh-default is part of the add-on jaeger",
		"testdata/manifests/own/own.yaml: Namespace istio-system is part of Istio's chart base",
		"testdata/manifests/own/own.yaml: Service appb is part of sm:apps",
		`testdata/manifests/own/own.yaml: Namespace default: label istio.io/dataplane-mode is "none", `+
			`and sm:install sets it to ambient`,
		"testdata/manifests/own/own.yaml: ConfigMap ambientlab-fault is part of sm:fault",
		"SM_ISTIO_VALUES",
	)
	if strings.Contains(err.Error(), "VirtualService mine") {
		t.Errorf("the user's own object is refused: %v", err)
	}
	d.noStep(t)
	// Without the add-on, nothing of the lab's sets the mesh's Telemetry.
	d = newDesk(t, &engine, "SM_MANIFESTS=testdata/manifests/own", "SM_ADDONS=prometheus")
	s := d.open(t)
	if err := checkManifests(t.Context(), s, newCharts(d.Env, s.Provider())); strings.Contains(err.Error(),
		"Telemetry") {
		t.Error(err)
	}
}

// TestManifestsComeInTime: istiod pulls its image with a Secret of SM_MANIFESTS, so Namespaces and the Secrets in
// namespaces that exist by then come before it, and everything else last.
func TestManifestsComeInTime(t *testing.T) {
	d := newDesk(t, nil, "SM_MANIFESTS=testdata/manifests/pull")
	d.UseProvider(absent{})
	s := d.open(t)
	early, late, err := splitManifests(s)
	if err != nil {
		t.Fatal(err)
	}
	named := func(list objects) string {
		var out []string
		for _, obj := range list {
			out = append(out, manifest.Name(obj))
		}
		return strings.Join(out, ", ")
	}
	if got := named(early); got != "Secret istio-system/hub, Secret shop/hub, Namespace shop" {
		t.Errorf("early: %s", got)
	}
	if got := named(late); got != "ConfigMap shop/settings, Secret elsewhere/hub" {
		t.Errorf("late: %s", got)
	}
	needs := map[string][]string{}
	for _, step := range installPlan(s, newCharts(d.Env, s.Provider())).Steps {
		needs[step.ID] = step.Needs
	}
	for _, step := range []string{"istiod", "istio-cni", "prometheus", "kiali"} {
		if !slices.Contains(needs[step], earlyManifestsPart) {
			t.Errorf("%s does not wait for the pull Secrets: %v", step, needs[step])
		}
	}
	if !slices.Contains(needs[earlyManifestsPart], "istio-base") {
		t.Errorf("the Secrets of istio-system come before its Namespace: %v", needs[earlyManifestsPart])
	}
}

// TestManifestsAreRemovedInReverse: a Namespace of an earlier SM_MANIFESTS is deleted after the objects in it.
func TestManifestsAreRemovedInReverse(t *testing.T) {
	b := newBed(t)
	b.UseProvider(absent{})
	s := b.open(t)
	s.Found.Parts = map[string]bool{earlyManifestsPart: true, manifestsPart: true}
	plan := installPlan(s, newCharts(b.Env, s.Provider()))
	if err := plan.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, step := range plan.Steps {
		if step.ID == earlyManifestsPart && !slices.Contains(step.Needs, manifestsPart) {
			t.Errorf("the Namespaces are deleted after %v", step.Needs)
		}
	}
}

// TestManifestsAreRefusedByName: whatever is wrong in a user's files is said with the setting, the file and the place.
func TestManifestsAreRefusedByName(t *testing.T) {
	for folder, words := range map[string][]string{
		"differs":    {"SM_MANIFESTS=", "differs/b.yaml: Namespace shop is also in ", "differs/a.yaml"},
		"kustomized": {"SM_MANIFESTS=", "kubectl kustomize"},
		"empty":      {"SM_MANIFESTS=", "holds no manifest"},
		"misspelt": {
			"SM_MANIFESTS=",
			"misspelt/istio.yaml: AuthorizationPolicy default/x: spec.targetReffs is not a known field; " +
				"did you mean spec.targetRefs?",
		},
	} {
		engine := newEngine()
		d := newDesk(t, &engine, "SM_MANIFESTS=../manifest/testdata/"+folder)
		refused(t, folder, d.Install(t.Context()), problem.SettingFileUnreadable, words...)
		d.noStep(t)
	}
}

// TestRoutesOfALaterLesson: an HTTPRoute for the lab's Gateway, or to appb, cannot be accepted before sm:apps.
func TestRoutesOfALaterLesson(t *testing.T) {
	route := func(spec string) *unstructured.Unstructured {
		list, err := manifest.Decode(
			[]byte("apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: mine}\nspec: " + spec))
		if err != nil {
			t.Fatal(err)
		}
		return list[0]
	}
	b := newBed(t)
	b.UseProvider(absent{})
	off := b.open(t)
	on := b.open(t)
	on.Found.Lessons = map[string]json.RawMessage{"apps": nil}
	for spec, later := range map[string]bool{
		"{parentRefs: [{name: gateway}]}":                                                                 true,
		"{parentRefs: [{name: gateway, namespace: default}]}":                                             true,
		"{parentRefs: [{name: gateway, namespace: other}]}":                                               false,
		"{parentRefs: [{name: mine}]}":                                                                    false,
		"{parentRefs: [{name: mine}], rules: [{backendRefs: [{name: appb, port: 8000}]}]}":                true,
		"{parentRefs: [{name: mine}], rules: [{backendRefs: [{name: mine}]}, {}, {backendRefs: []}]}":     false,
		"{parentRefs: [{name: appb, kind: Service, group: ''}]}":                                          true,
		"{parentRefs: [{name: mine}], rules: [{backendRefs: [{name: appb, kind: Gateway, group: x.y}]}]}": false,
	} {
		if got := needsLaterLesson(off)(route(spec)); got != later {
			t.Errorf("%s with sm:apps off: %v", spec, got)
		}
		if needsLaterLesson(on)(route(spec)) && !strings.Contains(spec, "waypoint") {
			t.Errorf("%s with sm:apps on is not waited for", spec)
		}
	}
	service := &unstructured.Unstructured{
		Object: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": "gateway"}},
	}
	if needsLaterLesson(off)(service) {
		t.Error("an object that is no route is not waited for")
	}
}
