package apply

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// differences lists the fields in which two states of one object differ, as
// "path: before → after", in the order of their paths. What the server keeps for
// itself, and the status, are not compared: a dry run may touch them and a write of
// the same intent would not.
func differences(before, after *unstructured.Unstructured) []string {
	secret := after.GetKind() == "Secret"
	var found []string
	var walk func(path string, a, b any)
	walk = func(path string, a, b any) {
		if reflect.DeepEqual(a, b) || ignored(path) {
			return
		}
		am, aIsMap := a.(map[string]any)
		bm, bIsMap := b.(map[string]any)
		if aIsMap && bIsMap {
			for _, k := range sortedKeys(am, bm) {
				walk(path+"."+k, am[k], bm[k])
			}
			return
		}
		as, aIsList := a.([]any)
		bs, bIsList := b.([]any)
		if aIsList && bIsList && len(as) == len(bs) {
			for i := range as {
				walk(path+"["+elementName(i, as[i], bs[i])+"]", as[i], bs[i])
			}
			return
		}
		if secret && (strings.HasPrefix(path, ".data") || strings.HasPrefix(path, ".stringData")) {
			found = append(found, strings.TrimPrefix(path, ".")+": changed")
			return
		}
		found = append(found, strings.TrimPrefix(path, ".")+": "+brief(a)+" → "+brief(b))
	}
	walk("", before.Object, after.Object)
	return found
}

func ignored(path string) bool {
	switch path {
	case ".status", ".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation",
		".metadata.uid", ".metadata.creationTimestamp", ".metadata.selfLink":
		return true
	default:
		return false
	}
}

// elementName names a list's element by its name where both states agree on it, so
// that a container is not called [0].
func elementName(i int, a, b any) string {
	am, _ := a.(map[string]any)
	bm, _ := b.(map[string]any)
	if name, ok := am["name"].(string); ok && name == bm["name"] {
		return name
	}
	return fmt.Sprint(i)
}

func sortedKeys(a, b map[string]any) []string {
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// briefLength bounds how much of a value a Change shows, in characters.
const briefLength = 60

func brief(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case map[string]any:
		return fmt.Sprintf("{%d fields}", len(v))
	case []any:
		return fmt.Sprintf("[%d elements]", len(v))
	}
	text := strings.ReplaceAll(fmt.Sprint(v), "\n", " ")
	if runes := []rune(text); len(runes) > briefLength {
		return string(runes[:briefLength]) + "…"
	}
	return text
}

// shown bounds how many differing fields a Change names.
const shown = 4

func detail(fields []string) string {
	if len(fields) <= shown {
		return strings.Join(fields, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(fields[:shown], "; "), len(fields)-shown)
}
