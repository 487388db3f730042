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
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

// The two parts of SM_MANIFESTS.
const (
	earlyManifestsPart = "manifests-first"
	manifestsPart      = "manifests"
)

// manifestsStep applies one part of SM_MANIFESTS: first its Namespaces, and its Secrets that Istio's pods may need to
// pull their images; last the other objects.
func manifestsStep(s *session.Session, part, what string, needs []string) engine.Step {
	source := s.Settings.Manifests
	if source == "" {
		source = "an earlier SM_MANIFESTS"
	}
	title, asked := what+" of "+source, s.Settings.Manifests != ""
	if removes(s, earlyManifestsPart, asked) || removes(s, manifestsPart, asked) {
		needs = manifestsRemoval(part)
	}
	render := func(context.Context) (objects, error) {
		early, late, err := splitManifests(s)
		if part == earlyManifestsPart {
			return early, err
		}
		return late, err
	}
	if installs(s, part, asked) {
		return s.SetStepWithout(part, title, needs, render, needsLaterLesson(s))
	}
	return optional(s, part, title, asked, needs, render)
}

// manifestsRemoval is what a part of SM_MANIFESTS needs where both are removed: a Namespace is deleted after the
// objects in it.
func manifestsRemoval(part string) []string {
	if part == earlyManifestsPart {
		return []string{"cluster", manifestsPart}
	}
	return []string{"cluster"}
}

// needsLaterLesson tells whether an object is a route that leads from or to an object of a lesson which is off. Its
// parents cannot accept it before the lesson is turned on, and sm:install must not wait for that.
func needsLaterLesson(s *session.Session) func(*unstructured.Unstructured) bool {
	later := map[manifest.ID]bool{} // of the objects of the lessons, by whether the first lesson that applies it is off
	for _, l := range lesson.All() {
		list, err := l.Objects(s.Config)
		if err != nil {
			continue // turning the lesson on reports it
		}
		_, on := s.Found.Lessons[l.Name]
		for _, obj := range list {
			id := manifest.IDOf(obj, s.Config.Namespace)
			if _, known := later[id]; !known {
				later[id] = !on
			}
		}
	}
	return func(obj *unstructured.Unstructured) bool {
		return slices.ContainsFunc(referencesOf(obj, s.Config.Namespace),
			func(id manifest.ID) bool { return later[id] })
	}
}

// referencesOf lists what a route of the Gateway API refers to: its parents and its backends.
func referencesOf(obj *unstructured.Unstructured, namespace string) []manifest.ID {
	if obj.GroupVersionKind().Group != gatewayAPIGroup {
		return nil
	}
	own := manifest.IDOf(obj, namespace).Namespace
	var all []manifest.ID
	add := func(list []any, defaults schema.GroupKind) {
		for _, item := range list {
			reference, _ := item.(map[string]any)
			text := func(field, fallback string) string {
				value, given, _ := unstructured.NestedString(reference, field)
				if !given {
					return fallback
				}
				return value
			}
			kind := schema.GroupKind{Group: text("group", defaults.Group), Kind: text("kind", defaults.Kind)}
			all = append(all, manifest.ID{GroupKind: kind, Namespace: text("namespace", own), Name: text("name", "")})
		}
	}
	parents, _, _ := unstructured.NestedSlice(obj.Object, "spec", "parentRefs")
	add(parents, schema.GroupKind{Group: gatewayAPIGroup, Kind: "Gateway"})
	rules, _, _ := unstructured.NestedSlice(obj.Object, "spec", "rules")
	for _, item := range rules {
		rule, _ := item.(map[string]any)
		backends, _, _ := unstructured.NestedSlice(rule, "backendRefs")
		add(backends, schema.GroupKind{Kind: "Service"})
	}
	return all
}

// splitManifests reads SM_MANIFESTS. early holds the Namespaces, and the Secrets in a namespace that exists before
// istiod is started.
func splitManifests(s *session.Session) (early, late objects, err error) {
	all, err := userObjects(s.Settings, s.Config.Namespace)
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
		id := manifest.IDOf(obj.Unstructured, s.Config.Namespace)
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
func userObjects(settings session.Settings, namespace string) ([]manifest.Object, error) {
	if settings.Manifests == "" {
		return nil, nil
	}
	all, err := manifest.Read(settings.Manifests, namespace)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_MANIFESTS=%s", settings.Manifests)
	}
	return all, nil
}

// checkManifests refuses objects of SM_MANIFESTS that a part of the lab applies too: each run would change them twice.
func checkManifests(ctx context.Context, s *session.Session, c *charts) error {
	namespace := s.Config.Namespace
	all, err := userObjects(s.Settings, namespace)
	if err != nil || len(all) == 0 {
		return err
	}
	owners, err := ownersOf(ctx, s, c)
	if err != nil {
		return err
	}
	var wrong []string
	for _, obj := range all {
		owner, taken := owners[manifest.IDOf(obj.Unstructured, namespace)]
		mode, set := obj.GetLabels()[dataplaneMode]
		if isNamespace(obj.Unstructured) && obj.GetName() == namespace && set && mode != ambientMode {
			wrong = append(wrong, fmt.Sprintf("%s: %s: label %s is %q, and sm:install sets it to %s",
				obj.File, manifest.Name(obj.Unstructured), dataplaneMode, mode, ambientMode))
		}
		if taken {
			wrong = append(wrong, fmt.Sprintf("%s: %s is part of %s", obj.File, manifest.Name(obj.Unstructured), owner))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	return problem.New(problem.SettingInvalid, nil, "SM_MANIFESTS:\n%s", strings.Join(wrong, "\n")).With(
		"Remove these objects from the files: the lab applies them itself.",
		"To change what Istio's charts make, use SM_ISTIO_VALUES.",
	)
}

// ownersOf says of every object that these settings install, and of those of the lessons, which part of the lab applies
// it.
func ownersOf(ctx context.Context, s *session.Session, c *charts) (map[manifest.ID]string, error) {
	owners := map[manifest.ID]string{}
	add := func(owner string, list objects, err error) error {
		for _, obj := range list {
			if id := manifest.IDOf(obj, s.Config.Namespace); owners[id] == "" {
				owners[id] = owner
			}
		}
		return err
	}
	rendered, err := c.render(ctx, s.BundleSubstitutes())
	if err != nil {
		return nil, err
	}
	for _, component := range upstream.Components() {
		_ = add("Istio's chart "+component, rendered[component], nil)
	}
	list, err := s.Upstream().GatewayAPI(ctx)
	if err := add("the Gateway API", list, err); err != nil {
		return nil, err
	}
	if s.Config.MetalLB {
		list, err := s.Upstream().MetalLB(ctx)
		if err := add("MetalLB", append(list, lb.Objects(lb.Pool{})...), err); err != nil {
			return nil, err
		}
	}
	for _, addon := range s.Config.Addons {
		list, err := s.Upstream().Addon(ctx, addon, s.Config.Addons...)
		if err := add("the add-on "+addon, list, err); err != nil {
			return nil, err
		}
	}
	if s.Config.HasAddon(upstream.Jaeger) {
		list, err := specs.Objects("istio/telemetry.yaml", nil)
		if err := add("the add-on jaeger (SM_ADDONS)", list, err); err != nil {
			return nil, err
		}
	}
	for _, l := range lesson.All() {
		list, err := l.Objects(s.Config)
		if err := add("sm:"+l.Name, list, err); err != nil {
			return nil, err
		}
	}
	record, err := session.Record{}.Object()
	return owners, add("the lab's record of the installation", objects{record}, err)
}
