package upstream

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambientlab/internal/manifest"
)

func TestImages(t *testing.T) {
	const text = `
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  initContainers: [{name: i, image: init:1}]
  containers: [{name: c, image: main:1}, {name: again, image: init:1}]
  volumes: [{name: v, image: {reference: "data:1"}}, {name: w, emptyDir: {}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: c}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: cron:1}]}}}}}
---
apiVersion: v1
kind: List
items:
- {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: d},
   spec: {template: {spec: {containers: [{name: c, image: daemon:1}]}}}}
---
# nothing
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector-canary}
data:
  values: '{"global": {"hub": "hub.test/i", "tag": "1.2", "variant": "distroless", "proxy": {"image": "proxyv2"}}}'
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {values: "image: nothing:1"}
...
`
	objs, err := manifest.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"cron:1", "daemon:1", "data:1", "hub.test/i/proxyv2:1.2-distroless", "init:1", "main:1"}
	if diff := cmp.Diff(want, Images(objs)); diff != "" {
		t.Error(diff)
	}
}

func TestProxyImage(t *testing.T) {
	for _, tc := range []struct{ values, want string }{
		{`{"global":{"hub":"h","tag":"1","proxy":{"image":"proxyv2"}}}`, "h/proxyv2:1"},
		{`{"global":{"hub":"h","tag":"1-debug","variant":"debug","proxy":{"image":"proxyv2"}}}`, "h/proxyv2:1-debug"},
		{`{"global":{"hub":"h","tag":"1","variant":"debug","proxy":{"image":"my.test/proxy:9"}}}`, "my.test/proxy:9"},
		{
			`{"global":{"hub":"h","tag":"1-debug","variant":"distroless","proxy":{"image":"proxyv2"}}}`,
			"h/proxyv2:1-distroless",
		},
		{`{"global":{}}`, ""},
		{`not JSON`, ""},
	} {
		objs, err := manifest.Decode(
			[]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-sidecar-injector}\ndata:\n  values: '" +
				tc.values + "'\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := proxyImage(objs[0]); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.values, got, tc.want)
		}
	}
}
