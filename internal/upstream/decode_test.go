package upstream

import "testing"

func TestDecodeRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no kind":          "apiVersion: v1\nmetadata: {name: a}\n",
		"a scalar":         "just words\n",
		"broken YAML":      "a: [\n",
		"a list of words":  "apiVersion: v1\nkind: List\nitems: [words]\n",
		"a nameless inner": "apiVersion: v1\nkind: List\nitems: [{metadata: {name: a}}]\n",
	} {
		if objs, err := decode([]byte(text)); err == nil {
			t.Errorf("%s: %v", name, objs)
		}
	}
}

// Whatever a template renders, decoding it ends in objects that can be applied or in an
// error.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: null}, spec: {n: 1.0}}\n---\n# nothing\n...\n"))
	f.Add([]byte("kind: List\napiVersion: v1\nitems: 3\n"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, err := decode(data)
		if err != nil {
			return
		}
		for _, obj := range objs {
			if obj.GetKind() == "" || obj.GetAPIVersion() == "" {
				t.Errorf("an object without a kind: %v", obj.Object)
			}
			obj.DeepCopy()
		}
		Images(objs)
	})
}
