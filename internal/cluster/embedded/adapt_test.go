package embedded

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAdapt(t *testing.T) {
	const (
		istiodDeployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: istiod, namespace: istio-system}
spec:
  template:
    spec:
      serviceAccountName: istiod
      containers:
      - name: discovery
        image: istiod
        args: [discovery, --monitoringAddr=:15014]
        env:
        - {name: REVISION, value: default}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: GOMAXPROCS, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
`
		hooks = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hooks}
webhooks:
- name: istio
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /validate}}
- name: other
  clientConfig: {service: {name: metallb-webhook-service, namespace: metallb-system, path: /x}}
- name: own
  clientConfig: {url: "https://example.com/hook"}
`
	)
	e := plain(t)
	s, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, in string
		kinds    string
		says     []string
		silent   []string
	}{
		{
			"istiod runs as a process", istiodDeployment, "ConfigMap",
			[]string{"ambientlab-process-istiod", `POD_NAMESPACE\": \"istio-system`, "--monitoringAddr=:15014"},
			[]string{"GOMAXPROCS"},
		},
		{
			"MetalLB's controller looks for its pod",
			"{apiVersion: apps/v1, kind: Deployment, metadata: {name: controller, namespace: metallb-system}, spec: " +
				"{template: {spec: {serviceAccountName: controller, containers: [{name: controller, image: c}]}}}}",
			"ConfigMap Pod",
			[]string{"controller-process", "lab.opssec.in/stands-for"},
			nil,
		},
		{
			"a budget for pods that are not there",
			"{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: istiod, namespace: istio-system}}", "",
			nil, nil,
		},
		{
			"other workloads are simulated, and say so",
			"{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: ztunnel, namespace: istio-system}}", "DaemonSet",
			[]string{Simulated},
			nil,
		},
		{
			"webhooks that are served stay", hooks, "ValidatingWebhookConfiguration",
			[]string{s.address("https", portIstiodHook) + "/validate", "https://example.com/hook"},
			[]string{"metallb", "service"},
		},
		{
			"a webhook configuration without a server is removed",
			"{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: " +
				"metallb}, webhooks: [{name: x, clientConfig: {service: {name: metallb-webhook-service, namespace: " +
				"metallb-system}}}]}",
			"", nil, nil,
		},
		{
			"anything else stays", "{apiVersion: v1, kind: Service, metadata: {name: istiod, namespace: istio-system}}",
			"Service", nil,
			[]string{Simulated},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := object(t, c.in)
			before := in.DeepCopy()
			var kinds, texts []string
			for _, o := range e.Adapt([]*unstructured.Unstructured{in}) {
				kinds = append(kinds, o.GetKind())
				raw, err := json.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, string(raw))
			}
			if got := strings.Join(kinds, " "); got != c.kinds {
				t.Errorf("got %q, not %q", got, c.kinds)
			}
			text := strings.Join(texts, "\n")
			for _, word := range c.says {
				if !strings.Contains(text, word) {
					t.Errorf("%q is not in\n%s", word, text)
				}
			}
			if i := slices.IndexFunc(c.silent, func(word string) bool { return strings.Contains(text, word) }); i >= 0 {
				t.Errorf("%q is in\n%s", c.silent[i], text)
			}
			if before, after := mustJSON(t, before), mustJSON(t, in); before != after {
				t.Errorf("what was handed in was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func mustJSON(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	raw, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
