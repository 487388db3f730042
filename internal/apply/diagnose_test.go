package apply

import (
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"

	"ambientlab/internal/problem"
)

// Each file under testdata/apply/diagnose holds an object that is not ready, then what else is in the cluster. The
// object's annotation is the problem that is to be named.
func TestDiagnose(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(statusDir, "diagnose", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			objs := objects(t, string(text))
			var known []runtime.Object
			for _, obj := range objs {
				if !scheme.Scheme.Recognizes(obj.GroupVersionKind()) {
					continue
				}
				typed, err := scheme.Scheme.New(obj.GroupVersionKind())
				if err != nil {
					t.Fatal(err)
				}
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, typed); err != nil {
					t.Fatal(err)
				}
				known = append(known, typed)
			}
			causes := map[string]problem.Kind{"no ztunnel connection": problem.ZtunnelDown}
			c := &Client{
				kube: fake.NewClientset(known...),
				options: Options{Causes: causes, Kinds: map[schema.GroupKind]Kind{
					{Group: gatewayGroup, Kind: "Gateway"}: {Pods: func(gateway *unstructured.Unstructured) string {
						return "gateway.networking.k8s.io/gateway-name=" + gateway.GetName()
					}},
				}},
			}
			d := c.diagnose(t.Context(), unreadyObject{objs[0], State{Message: "waiting"}})
			if got, want := d.ID+" "+d.Seen, objs[0].GetAnnotations()["want"]; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
