package apply

import (
	"os"
	"path/filepath"
	"testing"
)

const statusDir = "../../testdata/apply"

// Each object under testdata/apply says in its annotation what is to be made of it.
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
				judge := judges()[gk]
				if judge == nil {
					t.Fatalf("no judge of %s", gk)
				}
				judged[gk.Kind] = true
				s := judge(obj)
				got := "done"
				switch {
				case s.failed:
					got = "failed: " + s.message
				case !s.done:
					got = "waiting: " + s.message
				}
				if want := obj.GetAnnotations()["want"]; got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
	for gk := range judges() {
		if !judged[gk.Kind] && gk.Kind != "GRPCRoute" { // judged as HTTPRoute is
			t.Errorf("no status of a %s under %s", gk.Kind, statusDir)
		}
	}
}
