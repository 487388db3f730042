package apply

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDifferences(t *testing.T) {
	for _, tc := range []struct {
		name, before, after string
		want                []string
	}{
		{
			"noise",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, resourceVersion: '1', generation: 1, uid: u, " +
				"managedFields: [{manager: x}]}, data: {k: v}, status: {a: 1}}",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a, resourceVersion: '2', generation: 2, " +
				"managedFields: []}, data: {k: v}, status: {a: 2}}",
			nil,
		},
		{
			"values and elements by name",
			"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i:1}, {name: d, " +
				"image: i:1}], count: 1}}",
			"{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {x: y}}, spec: {containers: [{name: c, image: " +
				"i:2}, {name: d, image: i:1}]}}",
			[]string{
				"metadata.labels: none → {1 fields}", "spec.containers[c].image: i:1 → i:2",
				"spec.count: 1 → none",
			},
		},
		{
			"lists of another length, elements without a name",
			"{apiVersion: v1, kind: X, metadata: {name: a}, l: [1, 2], m: [1, 2]}",
			"{apiVersion: v1, kind: X, metadata: {name: a}, l: [1], m: [1, 3]}",
			[]string{"l: [2 elements] → [1 elements]", "m[1]: 2 → 3"},
		},
		{
			"a Secret keeps its secrets",
			"{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {k: b2xk}, stringData: {k: old}}",
			"{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {k: bmV3}}",
			[]string{"data.k: changed", "stringData: changed"},
		},
		{
			"broken lines",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: 'short'}}",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: \"" + strings.Repeat("ab\\n", 40) +
				"\"}}",
			[]string{"data.k: line 1: short → ab"},
		},
		{
			"a long line",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: 'short'}}",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: '" + strings.Repeat("ab ", 40) + "'}}",
			[]string{"data.k: short → " + strings.Repeat("ab ", 20) + "…"},
		},
		{
			"one line of many",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: \"same\\n  old\\nsame\", l: \"a\"}}",
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {k: \"same\\n  new\\nsame\", l: \"a\\nb\"}}",
			[]string{"data.k: line 2: old → new", "data.l: line 2: none → b"},
		},
		{
			"elements that come and go",
			"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {env: [{name: A}, {name: B}]}}",
			"{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {env: [{name: B}, {name: C}, {name: D}]}}",
			[]string{"spec.env: -A +C +D"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := differences(objects(t, tc.before)[0], objects(t, tc.after)[0])
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	many := []string{"a", "b", "c", "d", "e", "f"}
	if got := detail(many); got != "a; b; c; d; and 2 more" {
		t.Errorf("detail: %q", got)
	}
}

func TestUnchangedNeedsDigestAndFields(t *testing.T) {
	desired := objects(t, crdText)[0]
	fingerprint(desired)
	live := desired.DeepCopy()
	live.SetResourceVersion("7")
	live.Object["status"] = map[string]any{"x": "y"}
	if !unchanged(desired, live) {
		t.Error("what was applied counts as changed")
	}
	drifted := live.DeepCopy()
	spec := drifted.Object["spec"].(map[string]any)
	spec["scope"] = "Cluster"
	if unchanged(desired, drifted) {
		t.Error("a drifted field goes unseen")
	}
	longer := live.DeepCopy()
	spec = longer.Object["spec"].(map[string]any)
	spec["versions"] = append(spec["versions"].([]any), map[string]any{"name": "v2"})
	if unchanged(desired, longer) {
		t.Error("an added version goes unseen")
	}
	// A field that is no longer applied must be taken out, and only the digest tells.
	newer := desired.DeepCopy()
	delete(newer.Object["spec"].(map[string]any), "scope")
	fingerprint(newer)
	if unchanged(newer, live) {
		t.Error("a dropped field goes unseen")
	}
	other := objects(t, configMap("a", "k", "1"))[0]
	fingerprint(other)
	if unchanged(other, other) {
		t.Error("an object without a digest is not left to the server")
	}
}

const crdText = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.lab.test}
spec: {group: lab.test, scope: Namespaced, names: {kind: Widget, plural: widgets},
  versions: [{name: v1, served: true, storage: true}]}
`
