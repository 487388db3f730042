package apply

import (
	"os"
	"path/filepath"
	"testing"
)

const statusDir = "../../testdata/apply"

// Each object under testdata/apply says in its annotation which state it is in.
func TestStates(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(statusDir, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v %v", files, err)
	}
	judged := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, obj := range objects(t, string(text)) {
			t.Run(obj.GetKind()+"/"+obj.GetName(), func(t *testing.T) {
				gk := obj.GroupVersionKind().GroupKind()
				state := states()[gk]
				if state == nil {
					t.Fatalf("no state of %s", gk)
				}
				judged[gk.Kind] = true
				s := state(obj)
				got := "done"
				switch {
				case s.Failed:
					got = "failed: " + s.Message
				case !s.Ready:
					got = "waiting: " + s.Message
				}
				if want := obj.GetAnnotations()["want"]; got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
	for gk := range states() {
		if !judged[gk.Kind] {
			t.Errorf("no status of a %s under %s", gk.Kind, statusDir)
		}
	}
}
