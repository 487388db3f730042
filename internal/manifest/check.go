package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	istioscheme "istio.io/client-go/pkg/clientset/versioned/scheme"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	kubescheme "k8s.io/client-go/kubernetes/scheme"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"
)

// kinds knows the Go types of Kubernetes', Istio's and the Gateway API's kinds.
var kinds = sync.OnceValue(func() *runtime.Scheme {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		kubescheme.AddToScheme, apiextensionsv1.AddToScheme, istioscheme.AddToScheme,
		gatewayv1.Install, gatewayv1beta1.Install,
	} {
		utilruntime.Must(add(known))
	}
	return known
})

// Check decodes an object strictly into the Go type of its kind: Kubernetes' own kinds, Istio's and the Gateway API's.
// The error names the object and every field that the type does not have, with the nearest one that it has, or the
// value that the type does not take. An object of another kind passes: nothing is known about it here.
func Check(obj *unstructured.Unstructured) error {
	gvk := obj.GroupVersionKind()
	typed, err := kinds().New(gvk)
	if runtime.IsNotRegisteredError(err) {
		return checkKind(obj, gvk)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", Name(obj), err)
	}
	faults := checkFields("", obj.Object, reflect.TypeOf(typed).Elem())
	if len(faults) == 0 {
		faults = []error{decodeTyped(obj, typed)}
	}
	for i, fault := range faults {
		if fault != nil {
			faults[i] = fmt.Errorf("%s: %w", Name(obj), fault)
		}
	}
	return errors.Join(faults...)
}

// Name returns an object's kind, namespace and name, such as "AuthorizationPolicy default/appb".
func Name(obj *unstructured.Unstructured) string {
	name := obj.GetName()
	if obj.GetNamespace() != "" {
		name = obj.GetNamespace() + "/" + name
	}
	return obj.GetKind() + " " + name
}

// checkKind refuses a kind that its API version does not have. API versions that are not compiled in pass.
func checkKind(obj *unstructured.Unstructured, gvk schema.GroupVersionKind) error {
	if !kinds().IsVersionRegistered(gvk.GroupVersion()) {
		return nil
	}
	known := slices.Sorted(maps.Keys(kinds().KnownTypes(gvk.GroupVersion())))
	hint := suggestion("", gvk.Kind, known)
	return fmt.Errorf("%s: %s has no kind %s%s", Name(obj), gvk.GroupVersion(), gvk.Kind, hint)
}

// decodeTyped finds the values that a type does not take, once all fields are known. Istio's types ignore unknown
// fields (AllowUnknownFields in istio.io/api's *_json.gen.go), so this alone is not strict.
func decodeTyped(obj *unstructured.Unstructured, typed runtime.Object) error {
	data, err := obj.MarshalJSON()
	if err != nil {
		return err
	}
	return utiljson.Unmarshal(data, typed)
}

// checkFields lists the fields of a value that its Go type does not have. Values of another shape than the type's are
// left to decodeTyped.
func checkFields(path string, value any, t reflect.Type) []error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch zero := reflect.New(t).Interface().(type) {
	case proto.Message:
		return checkMessage(path, value, zero.ProtoReflect().Descriptor())
	case interface{ UnmarshalJSON([]byte) error }:
		return nil // it takes more than its fields say: a quantity, a time
	}
	var faults []error
	switch content := value.(type) {
	case map[string]any:
		switch t.Kind() {
		case reflect.Map:
			for _, key := range slices.Sorted(maps.Keys(content)) {
				faults = append(faults, checkFields(join(path, key), content[key], t.Elem())...)
			}
		case reflect.Struct:
			fields := map[string]reflect.Type{}
			collectFields(t, fields)
			for _, key := range slices.Sorted(maps.Keys(content)) {
				if field, known := fields[key]; known {
					faults = append(faults, checkFields(join(path, key), content[key], field)...)
				} else {
					faults = append(faults, unknownField(path, key, slices.Sorted(maps.Keys(fields))))
				}
			}
		}
	case []any:
		if t.Kind() == reflect.Slice || t.Kind() == reflect.Array {
			for i, element := range content {
				faults = append(faults, checkFields(fmt.Sprintf("%s[%d]", path, i), element, t.Elem())...)
			}
		}
	}
	return faults
}

// collectFields adds the fields of a struct, by the names that they have in JSON.
func collectFields(t reflect.Type, fields map[string]reflect.Type) {
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name != "":
			fields[name] = field.Type
		case field.Anonymous:
			embedded := field.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			collectFields(embedded, fields)
		case field.IsExported():
			fields[field.Name] = field.Type
		}
	}
}

// checkMessage is checkFields for a protobuf message in its JSON form, and also checks the names of enum values.
func checkMessage(path string, value any, message protoreflect.MessageDescriptor) []error {
	content, isMap := value.(map[string]any)
	if !isMap || message.ParentFile().Package() == "google.protobuf" {
		return nil // the well-known types have other JSON forms: a duration is a string, a Struct has any field
	}
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(content)) {
		field := message.Fields().ByJSONName(key)
		if field == nil {
			field = message.Fields().ByTextName(key)
		}
		if field == nil {
			var known []string
			for i := range message.Fields().Len() {
				known = append(known, message.Fields().Get(i).JSONName())
			}
			faults = append(faults, unknownField(path, key, known))
			continue
		}
		faults = append(faults, checkValue(join(path, key), content[key], field)...)
	}
	return faults
}

func checkValue(path string, value any, field protoreflect.FieldDescriptor) []error {
	var faults []error
	switch content := value.(type) {
	case []any:
		if field.IsList() {
			for i, element := range content {
				faults = append(faults, checkSingle(fmt.Sprintf("%s[%d]", path, i), element, field)...)
			}
		}
		return faults
	case map[string]any:
		if field.IsMap() {
			for _, key := range slices.Sorted(maps.Keys(content)) {
				faults = append(faults, checkSingle(join(path, key), content[key], field.MapValue())...)
			}
			return faults
		}
	}
	return checkSingle(path, value, field)
}

func checkSingle(path string, value any, field protoreflect.FieldDescriptor) []error {
	if field.Message() != nil {
		return checkMessage(path, value, field.Message())
	}
	name, isText := value.(string)
	if field.Enum() == nil || !isText || field.Enum().Values().ByName(protoreflect.Name(name)) != nil {
		return nil
	}
	var known []string
	for i := range field.Enum().Values().Len() {
		known = append(known, string(field.Enum().Values().Get(i).Name()))
	}
	return []error{fmt.Errorf("%s does not accept %q%s", path, name, suggestion("", name, known))}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func unknownField(path, key string, known []string) error {
	prefix := ""
	if path != "" {
		prefix = path + "."
	}
	return fmt.Errorf("%s%s is not a known field%s", prefix, key, suggestion(prefix, key, known))
}

// listed bounds how many known names an error lists.
const listed = 12

// suggestion says which of the known names is nearest to a wrong one or, where none is near, which there are.
func suggestion(prefix, wrong string, known []string) string {
	if len(known) == 0 {
		return ""
	}
	nearest := slices.MinFunc(known, func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(wrong, a), distance(wrong, b)), cmp.Compare(a, b))
	})
	if distance(wrong, nearest) <= max(2, len(wrong)/3) {
		return fmt.Sprintf("; did you mean %s%s?", prefix, nearest)
	}
	if len(known) > listed {
		return fmt.Sprintf("; known: %s and %d more", strings.Join(known[:listed], ", "), len(known)-listed)
	}
	return "; known: " + strings.Join(known, ", ")
}

// distance is the Levenshtein distance of two names without regard to case.
func distance(a, b string) int {
	from, to := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i, x := range from {
		diagonal := row[0]
		row[0] = i + 1
		for j, y := range to {
			substituted := diagonal
			if x != y {
				substituted++
			}
			diagonal = row[j+1]
			row[j+1] = min(substituted, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(to)]
}
