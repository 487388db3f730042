// Package specs holds what the lab itself applies: the kind configuration, Helm values, the two applications, their
// gateway and the lessons. Files are templates of YAML, filled with validated settings only.
package specs

import (
	"bytes"
	"embed"
	"fmt"
	"io"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

//go:embed kind.yaml istio lessons
var files embed.FS

// Render returns one spec with its template filled from data. A field that the template names and data lacks is an
// error: a spec with a hole in it must never reach a cluster.
func Render(name string, data any) ([]byte, error) {
	raw, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading spec %s: %w", name, err)
	}
	tmpl, err := template.New(name).Option("missingkey=error").Parse(string(raw))
	if err != nil {
		return nil, fmt.Errorf("parsing spec %s: %w", name, err)
	}
	var out bytes.Buffer
	if err := tmpl.Execute(&out, data); err != nil {
		return nil, fmt.Errorf("filling spec %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// Objects renders a spec and splits it into its objects, in the order of the file.
func Objects(name string, data any) ([]*unstructured.Unstructured, error) {
	raw, err := Render(name, data)
	if err != nil {
		return nil, err
	}
	objects, err := Decode(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("spec %s: %w", name, err)
	}
	return objects, nil
}

// Decode splits a stream of YAML or JSON documents into objects. Empty documents are passed over; a document that
// is no Kubernetes object is an error that says which one.
func Decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(r, 4096)
	var objects []*unstructured.Unstructured
	for n := 1; ; n++ {
		content := map[string]any{}
		err := decoder.Decode(&content)
		if err == io.EOF {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d is not YAML: %w", n, err)
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{Object: content}
		if object.GetKind() == "" || object.GetAPIVersion() == "" || object.GetName() == "" {
			return nil, fmt.Errorf("document %d is not a Kubernetes object: it needs apiVersion, kind and metadata.name", n)
		}
		objects = append(objects, object)
	}
}

// Values reads a spec as Helm values.
func Values(name string) (map[string]any, error) {
	raw, err := files.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading values %s: %w", name, err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(raw, &values); err != nil {
		return nil, fmt.Errorf("parsing values %s: %w", name, err)
	}
	return values, nil
}
