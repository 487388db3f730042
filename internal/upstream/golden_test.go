package upstream

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const goldenDir = "../../testdata/upstream"

// golden compares text with a file of testdata/upstream.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(goldenDir, name)
	if *update {
		if err := os.MkdirAll(goldenDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (run with -update to accept) (-want +got):\n%s", path, diff)
	}
}

// list prints the objects, one a line, and the images that they need.
func list(objs []*unstructured.Unstructured) string {
	var b strings.Builder
	for _, o := range objs {
		name := o.GetName()
		if ns := o.GetNamespace(); ns != "" {
			name = ns + "/" + name
		}
		fmt.Fprintf(&b, "%s %s %s\n", o.GetAPIVersion(), o.GetKind(), name)
	}
	for _, image := range Images(objs) {
		fmt.Fprintf(&b, "image %s\n", image)
	}
	return b.String()
}
