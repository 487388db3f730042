package upstream_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/upstream"
)

func TestAskSoon(t *testing.T) {
	const text = `
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: slow
        readinessProbe:
          {httpGet: {path: /readyz, port: 80}, initialDelaySeconds: 10, periodSeconds: 10, timeoutSeconds: 1,
           successThreshold: 1}
        livenessProbe: {httpGet: {path: /livez, port: 80}, initialDelaySeconds: 10}
      - name: own
        readinessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: 5}
        startupProbe: {tcpSocket: {port: 80}, periodSeconds: 3}
      - name: often
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 4}
      - name: odd
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 5, failureThreshold: 1}
      - name: none
`
	const want = `
kind: Deployment
spec:
  template:
    spec:
      containers:
      - name: slow
        readinessProbe:
          {httpGet: {path: /readyz, port: 80}, periodSeconds: 2, failureThreshold: 15, timeoutSeconds: 1,
           successThreshold: 1}
        livenessProbe: {httpGet: {path: /livez, port: 80}, initialDelaySeconds: 10}
        startupProbe: {httpGet: {path: /readyz, port: 80}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 600}
      - name: own
        readinessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: 5}
        startupProbe: {tcpSocket: {port: 80}, periodSeconds: 3}
      - name: often
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 4}
        startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 600}
      - name: odd
        readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 2, failureThreshold: 3}
        startupProbe: {tcpSocket: {port: 80}, periodSeconds: 1, failureThreshold: 600}
      - name: none
`
	read := func(text string) map[string]any {
		raw, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var content unstructured.Unstructured // its whole numbers are int64, as in every object
		if err := content.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		return content.Object
	}
	object := &unstructured.Unstructured{Object: read(text)}
	for range 2 { // a second time changes nothing
		upstream.AskSoon([]*unstructured.Unstructured{object})
		raw, err := yaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read(want), read(string(raw))); diff != "" {
			t.Error(diff)
		}
	}
}
