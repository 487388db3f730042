package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

// The two parts of SM_MANIFESTS.
const (
	earlyManifestsPart = "manifests-first"
	manifestsPart      = "manifests"
)

// earlyManifestsStep applies the Namespaces of SM_MANIFESTS, and its Secrets that Istio's pods may need to pull their
// images.
func (l *Lab) earlyManifestsStep(needs ...string) engine.Step {
	return l.manifestsStep(earlyManifestsPart, "Namespaces and Secrets", needs)
}

// lateManifestsStep applies the other objects of SM_MANIFESTS.
func (l *Lab) lateManifestsStep(needs ...string) engine.Step {
	return l.manifestsStep(manifestsPart, "Manifests", needs)
}

func (l *Lab) manifestsStep(part, what string, needs []string) engine.Step {
	source := l.Settings.Manifests
	if source == "" {
		source = "an earlier SM_MANIFESTS"
	}
	asked := l.Settings.Manifests != ""
	return l.optional(part, what+" of "+source, asked, needs, func(context.Context) (objects, error) {
		early, late, err := l.splitManifests()
		if part == earlyManifestsPart {
			return early, err
		}
		return late, err
	})
}

// splitManifests reads SM_MANIFESTS. early holds the Namespaces, and the Secrets in a namespace that exists before
// istiod is started.
func (l *Lab) splitManifests() (early, late objects, err error) {
	all, err := l.userObjects()
	if err != nil {
		return nil, nil, err
	}
	existing := []string{names.Istio, "default"}
	for _, obj := range all {
		if isNamespace(obj.Unstructured) {
			existing = append(existing, obj.GetName())
		}
	}
	for _, obj := range all {
		id := manifest.IDOf(obj.Unstructured, l.Settings.Namespace)
		isSecret := id.Group == "" && id.Kind == "Secret"
		if isNamespace(obj.Unstructured) || isSecret && slices.Contains(existing, id.Namespace) {
			early = append(early, obj.Unstructured)
		} else {
			late = append(late, obj.Unstructured)
		}
	}
	return early, late, nil
}

func isNamespace(obj *unstructured.Unstructured) bool {
	return obj.GetKind() == "Namespace" && obj.GroupVersionKind().Group == ""
}

// userObjects reads SM_MANIFESTS; without it there are none.
func (l *Lab) userObjects() ([]manifest.Object, error) {
	if l.Settings.Manifests == "" {
		return nil, nil
	}
	all, err := manifest.Read(l.Settings.Manifests, l.Settings.Namespace)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_MANIFESTS=%s", l.Settings.Manifests)
	}
	return all, nil
}

// checkManifests refuses objects of SM_MANIFESTS that a part of the lab applies too: each run would change them twice.
func (l *Lab) checkManifests(ctx context.Context) error {
	all, err := l.userObjects()
	if err != nil || len(all) == 0 {
		return err
	}
	owners, err := l.owners(ctx)
	if err != nil {
		return err
	}
	var faults []string
	for _, obj := range all {
		id, name := manifest.IDOf(obj.Unstructured, l.Settings.Namespace), manifest.Name(obj.Unstructured)
		owner, taken := owners[id]
		switch mode, set := obj.GetLabels()[dataplaneMode]; {
		case isNamespace(obj.Unstructured) && obj.GetName() == l.Settings.Namespace && set && mode != ambientMode:
			faults = append(faults, fmt.Sprintf("%s: %s: label %s is %q, and sm:install sets it to %s",
				obj.File, name, dataplaneMode, mode, ambientMode))
		case id.Group == "" && id.Kind == "ConfigMap" && strings.HasPrefix(id.Name, askedName("")):
			owner, taken = "the lab's record of its lessons", true
		}
		if taken {
			faults = append(faults, fmt.Sprintf("%s: %s is part of %s", obj.File, name, owner))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return problem.New(problem.SettingConflict, nil, "SM_MANIFESTS: %s", strings.Join(faults, "; ")).
		With(
			"Remove these objects from the files: the lab applies them itself.",
			"To change what Istio's charts make, use SM_ISTIO_VALUES.",
		)
}

// owners says of every object that these settings install, and of those of the lessons, which part of the lab it
// belongs to.
func (l *Lab) owners(ctx context.Context) (map[manifest.ID]string, error) {
	owners := map[manifest.ID]string{}
	add := func(owner string, list objects, err error) error {
		for _, obj := range list {
			owners[manifest.IDOf(obj, l.Settings.Namespace)] = owner
		}
		return err
	}
	rendered, err := l.renderIstio(ctx, l.bundleSubstitutes())
	if err != nil {
		return nil, err
	}
	for _, component := range upstream.Components() {
		_ = add("Istio's chart "+component, rendered[component], nil)
	}
	list, err := l.upstream.GatewayAPI(ctx)
	if err := add("the Gateway API", list, err); err != nil {
		return nil, err
	}
	if l.Settings.UseMetalLB() {
		list, err := l.upstream.MetalLB(ctx)
		if err := add("MetalLB", append(list, lb.Objects(lb.Pool{})...), err); err != nil {
			return nil, err
		}
	}
	for _, addon := range l.Settings.Addons {
		list, err := l.upstream.Addon(ctx, addon, l.Settings.Addons...)
		if err := add("the add-on "+addon, list, err); err != nil {
			return nil, err
		}
	}
	fault := params.DefaultFault()
	data := map[string]any{
		"Namespace": l.Settings.Namespace, "Percent": fault.Percent, "Delay": fault.Delay.String(),
		"Path": fault.Path, "Exact": fault.Exact, "Principals": []string(nil), "ServiceType": "",
	}
	for key, image := range l.images() {
		data[key] = image
	}
	for _, spec := range []struct{ owner, file string }{
		{"sm:apps", "lessons/apps/appa.yaml"},
		{"sm:apps", "lessons/apps/appb.yaml"},
		{"sm:apps", "lessons/apps/gateway.yaml"},
		{"sm:waypoint", "lessons/waypoint/gateway.yaml"},
		{"sm:waypoint", "lessons/waypoint/upstream-envoy.yaml"},
		{"sm:fault", "lessons/fault/delay.yaml"},
		{"sm:authz", "lessons/authz/get-only.yaml"},
		{"sm:authz", "lessons/authz/strict.yaml"},
		{"the add-on jaeger (SM_ADDONS)", "istio/telemetry.yaml"},
	} {
		if spec.file == "istio/telemetry.yaml" && !l.Settings.HasAddon(upstream.Jaeger) {
			continue
		}
		list, err := specs.Objects(spec.file, data)
		if err := add(spec.owner, list, err); err != nil {
			return nil, err
		}
	}
	record := manifest.ID{GroupKind: schema.GroupKind{Kind: "ConfigMap"}, Namespace: recordNamespace, Name: recordName}
	owners[record] = "the lab's record of the installation"
	return owners, nil
}
