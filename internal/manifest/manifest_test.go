package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func read(t *testing.T, name string) ([]string, error) {
	t.Helper()
	objs, err := Read(filepath.Join("testdata", name), "default")
	var names []string
	for _, obj := range objs {
		names = append(names, obj.File+": "+Name(obj.Unstructured))
	}
	return names, err
}

func TestRead(t *testing.T) {
	for name, want := range map[string][]string{
		"twice": {"testdata/twice/a.yaml: Namespace shop", "testdata/twice/a.yaml: ConfigMap settings"},
		"list":  {"testdata/list/list.yaml: Namespace shop", "testdata/list/list.yaml: ConfigMap shop/settings"},
		"json":  {"testdata/json/two.json: ConfigMap shop/one", "testdata/json/two.json: ConfigMap shop/two"},
		"nested": {
			"testdata/nested/deep/widget.yml: Widget w",
			"testdata/nested/list.yaml: Namespace shop", "testdata/nested/list.yaml: ConfigMap shop/settings",
		},
		"differs/a.yaml": {"testdata/differs/a.yaml: Namespace shop"},
	} {
		got, err := read(t, name)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"differs": "testdata/differs/b.yaml: Namespace shop is also in testdata/differs/a.yaml, with other contents; " +
			"keep one of them",
		"kustomized": "testdata/kustomized/kustomization.yaml is for kustomize, which has to render it first: " +
			"`kubectl kustomize testdata/kustomized > rendered.yaml`, then use rendered.yaml",
		"kustomized/kustomization.yaml": "`kubectl kustomize testdata/kustomized > rendered.yaml`",
		"empty":                         "folder testdata/empty holds no manifest (*.yaml, *.yml, *.json)",
		"comments":                      "testdata/comments holds no Kubernetes object",
		"comments/later.yaml":           "testdata/comments/later.yaml holds no Kubernetes object",
		"nowhere":                       "no such file or directory",
	} {
		_, err := read(t, name)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got  %v\nwant %s", name, err, want)
		}
	}
}

// Every fault is reported in one run, with its file, its path and what was probably meant.
func TestReadNamesEveryFault(t *testing.T) {
	_, err := read(t, "misspelt")
	if err == nil {
		t.Fatal("accepted")
	}
	want := strings.Split(strings.TrimSpace(`
gateway.yaml: HTTPRoute default/http: metadata.lables is not a known field; did you mean metadata.labels?
gateway.yaml: HTTPRoute default/http: spec.rules[0].backendRef is not a known field; `+
		`did you mean spec.rules[0].backendRefs?
gateway.yaml: HttpRoute http2: gateway.networking.k8s.io/v1 has no kind HttpRoute; did you mean HTTPRoute?
istio.yaml: AuthorizationPolicy default/x: spec.action does not accept "ALOW"; did you mean ALLOW?
istio.yaml: AuthorizationPolicy default/x: spec.rules[0].to[0].operation.method is not a known field; `+
		`did you mean spec.rules[0].to[0].operation.methods?
istio.yaml: AuthorizationPolicy default/x: spec.targetReffs is not a known field; did you mean spec.targetRefs?
istio.yaml: VirtualService default/slow: bad Duration: time: unknown unit " s" in duration "2 s"
kubernetes.yaml: Deployment a: json: cannot unmarshal string into Go struct field `+
		`DeploymentSpec.spec.replicas of type int32
kubernetes.yaml: Service s: spec.ports[0].appProtocoll is not a known field; did you mean spec.ports[0].appProtocol?
kubernetes.yaml: Service s: spec.ports[0].targetport is not a known field; did you mean spec.ports[0].targetPort?
`), "\n")
	got := strings.Split(strings.ReplaceAll(err.Error(), "testdata/misspelt/", ""), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCheckAccepts(t *testing.T) {
	for name, text := range map[string]string{
		"what a Struct takes": `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: f}
spec: {configPatches: [{applyTo: HTTP_FILTER, patch: {operation: MERGE, value: {any: {thing: [1]}}}}]}`,
		"quantities, times and numbers or texts": `
apiVersion: v1
kind: Pod
metadata: {name: p, creationTimestamp: null}
spec:
  containers:
  - name: c
    resources: {limits: {cpu: 1, memory: 1Gi}}
    readinessProbe: {httpGet: {port: web}}
    livenessProbe: {httpGet: {port: 80}}`,
		"durations and wrappers": `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec:
  host: a
  trafficPolicy:
    outlierDetection: {interval: 5s, consecutive5xxErrors: 3}
    connectionPool: {tcp: {connectTimeout: 1s}}`,
		"another version of Istio's kinds": `
apiVersion: security.istio.io/v1beta1
kind: PeerAuthentication
metadata: {name: p}
spec: {mtls: {mode: STRICT}, portLevelMtls: {"8080": {mode: DISABLE}}}`,
		"a CRD": `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: w.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: W, plural: w}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, default: {a: 1}, x-kubernetes-preserve-unknown-fields: true}}`,
		"a kind that is not compiled in": "apiVersion: example.com/v1\nkind: Widget\n" +
			"metadata: {name: w}\nanything: goes",
	} {
		objs, err := Decode([]byte(text))
		if err != nil || len(objs) != 1 {
			t.Fatalf("%s: %v", name, err)
		}
		if err := Check(objs[0]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"no object": {
			"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\nhello: world\n",
			"document 2: it is not a Kubernetes object: apiVersion or kind is missing",
		},
		"a text":  {"hello", "document 1: it is not a Kubernetes object"},
		"no name": {"apiVersion: v1\nkind: Secret\n", "document 1: Secret has no metadata.name"},
		"a key twice": {
			"apiVersion: v1\nkind: Secret\nkind: ConfigMap\nmetadata: {name: a}\n",
			"document 1: yaml: unmarshal errors:\n  line 3: key \"kind\" already set in map",
		},
		"not YAML": {"a: b: c", "document 1: "},
		"an empty item": {
			"apiVersion: v1\nkind: List\nitems: [{}]\n",
			"document 1: items[0] of List: it is not a Kubernetes object",
		},
		"cut-off JSON":   {`{"apiVersion": "v1", "kind": `, "document 1: "},
		"no list at all": {"apiVersion: v1\nkind: List\n", "document 1: List has no metadata.name"},
	} {
		if _, err := Decode([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", name, err, tc.want)
		}
	}
}

func TestDecodeKeepsWholeNumbers(t *testing.T) {
	data, err := os.ReadFile("testdata/nested/deep/widget.yml")
	if err != nil {
		t.Fatal(err)
	}
	objs, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if size := objs[0].Object["spec"].(map[string]any)["size"]; size != int64(15008) {
		t.Errorf("got %T %v", size, size)
	}
}

func TestSuggestion(t *testing.T) {
	for wrong, want := range map[string]string{
		"targetRef": "; did you mean targetRefs?",
		"ACTION":    "; did you mean action?",
		"zzzzzz":    "; known: action, rules, targetRefs",
	} {
		if got := suggestion("", wrong, []string{"action", "rules", "targetRefs"}); got != want {
			t.Errorf("%s: %q", wrong, got)
		}
	}
	var many []string
	for i := range 13 {
		many = append(many, strings.Repeat(string(rune('a'+i)), 7))
	}
	if got := suggestion("", "zz", many); !strings.HasSuffix(got, "lllllll and 1 more") {
		t.Error(got)
	}
}

// Any input ends in an error or in objects that can be copied and checked.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: List\nitems:\n" +
		"- {apiVersion: v1, kind: Pod, metadata: {name: a, creationTimestamp: null}, spec: {n: 1.0}}\n" +
		"---\n# nothing\n...\n"))
	f.Add([]byte("kind: List\napiVersion: v1\nitems: 3\n"))
	f.Add([]byte("---\n---\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, err := Decode(data)
		if err != nil {
			return
		}
		for _, obj := range objs {
			if obj.GetKind() == "" || obj.GetAPIVersion() == "" {
				t.Errorf("an object without a kind: %v", obj.Object)
			}
			obj.DeepCopy()
			_ = Check(obj)
		}
	})
}
