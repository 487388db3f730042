package upstream

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// decode splits a YAML stream into objects, in the order of the stream. Documents
// that hold nothing, which templates leave behind, are passed over; Lists are opened.
func decode(data []byte) ([]*unstructured.Unstructured, error) {
	var objs []*unstructured.Unstructured
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for n := 1; ; n++ {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(doc, &content); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(content) == 0 {
			continue
		}
		obj := &unstructured.Unstructured{Object: content}
		if obj.GetKind() == "" || obj.GetAPIVersion() == "" {
			return nil, fmt.Errorf("document %d has no apiVersion or no kind", n)
		}
		if !obj.IsList() {
			objs = append(objs, tidy(obj))
			continue
		}
		err = obj.EachListItem(func(item runtime.Object) error {
			u, ok := item.(*unstructured.Unstructured)
			if !ok || u.GetKind() == "" || u.GetAPIVersion() == "" {
				return fmt.Errorf("document %d: an item of the list has no apiVersion or no kind", n)
			}
			objs = append(objs, tidy(u))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
}

// tidy drops what code generators leave in manifests and no one may apply: a status,
// and a null creation time. It also turns the numbers of the YAML decoder into those
// that unstructured content may hold.
func tidy(obj *unstructured.Unstructured) *unstructured.Unstructured {
	obj = &unstructured.Unstructured{Object: normal(obj.Object).(map[string]any)}
	delete(obj.Object, "status")
	unstructured.RemoveNestedField(obj.Object, "metadata", "creationTimestamp")
	if len(obj.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(obj.Object, "metadata", "annotations")
	}
	return obj
}

// normal copies a value, with whole floats as int64: sigs.k8s.io/yaml decodes every
// number as float64, and DeepCopyJSON keeps what it gets, so 15008 would be printed
// in exponent form in places.
func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = normal(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = normal(e)
		}
		return s
	case float64:
		if i := int64(v); float64(i) == v {
			return i
		}
		return v
	case int:
		return int64(v)
	default:
		return v
	}
}
