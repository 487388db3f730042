// Package manifest reads Kubernetes objects from YAML and JSON, and checks them strictly against the Go types of their
// kinds before anything is sent to a cluster.
package manifest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Decode splits a stream of YAML or JSON documents into objects, in the order of the stream. Empty documents are
// skipped, and every List is replaced by its items. What only the API server sets (status, creationTimestamp) is
// dropped. An error names the number of the document, counted from 1.
func Decode(data []byte) ([]*unstructured.Unstructured, error) {
	documents, err := split(data)
	if err != nil {
		return nil, err
	}
	var objs []*unstructured.Unstructured
	for i, document := range documents {
		found, err := decode(document)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		objs = append(objs, found...)
	}
	return objs, nil
}

// split returns the documents of a stream as JSON. JSON is tried first where the stream looks like it: YAML does not
// allow the tabs that JSON files are often indented with.
func split(data []byte) ([][]byte, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		if documents, err := splitJSON(data); err == nil {
			return documents, nil
		}
	}
	var documents [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err == nil {
			document, err = yaml.YAMLToJSONStrict(document)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", len(documents)+1, err)
		}
		documents = append(documents, document)
	}
}

func splitJSON(data []byte) ([][]byte, error) {
	var documents [][]byte
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var document json.RawMessage
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, document)
	}
}

// decode returns the object of a document, or the objects of a List.
func decode(document []byte) ([]*unstructured.Unstructured, error) {
	content := map[string]any{}
	if err := utiljson.Unmarshal(document, &content); err != nil {
		return nil, fmt.Errorf("it is not a Kubernetes object: %w", err)
	}
	if len(content) == 0 {
		return nil, nil
	}
	return flatten(content)
}

func flatten(content map[string]any) ([]*unstructured.Unstructured, error) {
	obj := &unstructured.Unstructured{Object: content}
	if obj.GetKind() == "" || obj.GetAPIVersion() == "" {
		return nil, errors.New("it is not a Kubernetes object: apiVersion or kind is missing")
	}
	if !strings.HasSuffix(obj.GetKind(), "List") || !obj.IsList() {
		tidy(obj)
		if obj.GetName() == "" {
			return nil, fmt.Errorf("%s has no metadata.name", obj.GetKind())
		}
		return []*unstructured.Unstructured{obj}, nil
	}
	items, _, err := unstructured.NestedSlice(content, "items")
	if err != nil {
		return nil, err
	}
	var objs []*unstructured.Unstructured
	for i, item := range items {
		fields, _ := item.(map[string]any)
		found, err := flatten(fields)
		if err != nil {
			return nil, fmt.Errorf("items[%d] of %s: %w", i, obj.GetKind(), err)
		}
		objs = append(objs, found...)
	}
	return objs, nil
}

// tidy drops what only the API server sets, and an empty map of annotations, which code generators leave in manifests.
func tidy(obj *unstructured.Unstructured) {
	delete(obj.Object, "status")
	unstructured.RemoveNestedField(obj.Object, "metadata", "creationTimestamp")
	if len(obj.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(obj.Object, "metadata", "annotations")
	}
}
