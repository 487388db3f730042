package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// AnnotationApplied holds a digest of what the lab applied, on CRDs.
const AnnotationApplied = "lab.opssec.in/applied"

// fingerprint puts a digest of a CRD into its annotations. The dry run of a CRD is expensive for the API server, and
// Istio and the Gateway API have 25 of them: without the digest most of a second run would be spent on dry runs of
// CRDs.
func fingerprint(obj *unstructured.Unstructured) {
	if obj.GroupVersionKind().GroupKind() != crdKind() {
		return
	}
	unstructured.RemoveNestedField(obj.Object, "metadata", "annotations", AnnotationApplied)
	data, err := json.Marshal(obj.Object)
	if err != nil {
		return // then there is no digest, and the dry run decides
	}
	sum := sha256.Sum256(data)
	annotate(obj, AnnotationApplied, hex.EncodeToString(sum[:16]))
}

func annotate(obj *unstructured.Unstructured, key, value string) {
	annotations := obj.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	obj.SetAnnotations(annotations)
}

// unchanged says without the API server that a write would change nothing: the digest shows that the lab applied the
// same CRD before, so that no field has to be removed, and the live object has every field of it. If it returns false
// the API server has to be asked.
func unchanged(obj, live *unstructured.Unstructured) bool {
	digest := obj.GetAnnotations()[AnnotationApplied]
	return digest != "" && digest == live.GetAnnotations()[AnnotationApplied] && within(obj.Object, live.Object)
}

// within says whether b has every field of a. Lists must have the same length.
func within(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return false
		}
		for k, v := range a {
			if other, ok := b[k]; !ok || !within(v, other) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !within(a[i], b[i]) {
				return false
			}
		}
		return true
	default:
		return reflect.DeepEqual(a, b)
	}
}
