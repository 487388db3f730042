package apply

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// differences lists the fields in which two states of one object differ, as "path: before → after", in the order of
// their paths. The status and the fields that only the server sets are not compared: a dry run may change them where
// the write itself would not.
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
		found = append(found, strings.TrimPrefix(path, ".")+": "+change(a, b))
	}
	walk("", before.Object, after.Object)
	return found
}

func ignored(path string) bool {
	switch path {
	case ".status", ".metadata.managedFields", ".metadata.resourceVersion", ".metadata.generation",
		".metadata.uid", ".metadata.creationTimestamp", ".metadata.selfLink",
		".metadata.annotations.deprecated.daemonset.template.generation": // the server's, and follows the generation
		return true
	default:
		return false
	}
}

// change describes how a value changes: for texts of several lines the first line that differs, for lists the elements
// that are added and removed.
func change(a, b any) string {
	as, aIsText := a.(string)
	bs, bIsText := b.(string)
	if aIsText && bIsText && strings.Contains(as+bs, "\n") {
		return lineChange(strings.Split(as, "\n"), strings.Split(bs, "\n"))
	}
	al, _ := a.([]any)
	bl, _ := b.([]any)
	if len(al) > 0 && len(bl) > 0 {
		if text := nameChange(names(al), names(bl)); text != "" {
			return text
		}
	}
	return brief(a) + " → " + brief(b)
}

func lineChange(a, b []string) string {
	line := func(lines []string, i int) string {
		if i < len(lines) {
			return brief(strings.TrimSpace(lines[i]))
		}
		return "none"
	}
	for i := range max(len(a), len(b)) {
		if i >= len(a) || i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("line %d: %s → %s", i+1, line(a, i), line(b, i))
		}
	}
	return "no line differs"
}

// names gives the names of a list's elements, as far as they have any.
func names(list []any) []string {
	var out []string
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			if name, ok := m["name"].(string); ok {
				out = append(out, name)
			}
		}
	}
	return out
}

// nameChange lists the names that were added (+) and removed (-).
func nameChange(a, b []string) string {
	var parts []string
	for _, name := range a {
		if !slices.Contains(b, name) {
			parts = append(parts, "-"+name)
		}
	}
	for _, name := range b {
		if !slices.Contains(a, name) {
			parts = append(parts, "+"+name)
		}
	}
	return strings.Join(parts, " ")
}

// elementName returns the name of a list's element where both states have the same one, and its index otherwise.
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
