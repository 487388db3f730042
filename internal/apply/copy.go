package apply

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// duplicate copies an object, with every value in the form that unstructured content
// must have. Objects written as Go literals hold ints and []string as a matter of
// course, at which Kubernetes' own DeepCopy panics.
func duplicate(obj *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	content, err := plain(obj.Object)
	if err != nil {
		return nil, fmt.Errorf("object %s %s: %w", obj.GetKind(), obj.GetName(), err)
	}
	fields, _ := content.(map[string]any)
	return &unstructured.Unstructured{Object: fields}, nil
}

func plain(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, int64, float64:
		return v, nil
	case int:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case []string:
		return plainList(v)
	case []any:
		return plainList(v)
	case []map[string]any:
		return plainList(v)
	case map[string]string:
		return plainMap(v)
	case map[string]any:
		return plainMap(v)
	default:
		return nil, fmt.Errorf("a value of type %T is not JSON", v)
	}
}

func plainList[T any](list []T) (any, error) {
	out := make([]any, len(list))
	for i, e := range list {
		var err error
		if out[i], err = plain(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func plainMap[T any](m map[string]T) (any, error) {
	out := make(map[string]any, len(m))
	for k, e := range m {
		var err error
		if out[k], err = plain(e); err != nil {
			return nil, fmt.Errorf("%s: %w", k, err)
		}
	}
	return out, nil
}
