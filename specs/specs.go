// Package specs holds what the lab itself applies: the kind configuration, Helm values, the two applications, their
// gateway and the lessons, and the texts of the workshop's stations. The YAML files are templates, filled with
// validated settings only.
package specs

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/manifest"
)

//go:embed kind.yaml istio lessons sabotage stations
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

// Objects renders a spec and returns its objects, in the order of the file. Each is checked strictly against the type
// of its kind: what a template is filled with must not make a field that nothing reads.
func Objects(name string, data any) ([]*unstructured.Unstructured, error) {
	raw, err := Render(name, data)
	if err != nil {
		return nil, err
	}
	objects, err := manifest.Decode(raw)
	if err != nil {
		return nil, fmt.Errorf("spec %s: %w", name, err)
	}
	for _, object := range objects {
		if err := manifest.Check(object); err != nil {
			return nil, fmt.Errorf("spec %s: %w", name, err)
		}
	}
	return objects, nil
}

// OfLesson lists the specs in the folder of a lesson.
func OfLesson(lesson string) ([]string, error) {
	paths, err := fs.Glob(files, "lessons/"+lesson+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("listing the specs of lesson %s: %w", lesson, err)
	}
	return paths, nil
}

// Station returns the text of a station of the workshop, as Markdown.
func Station(name string) (string, error) {
	raw, err := files.ReadFile("stations/" + name + ".md")
	if err != nil {
		return "", fmt.Errorf("reading the text of station %s: %w", name, err)
	}
	return string(raw), nil
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
