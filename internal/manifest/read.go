package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is an object and the file that it was read from.
type Object struct {
	*unstructured.Unstructured
	File string
}

// ID identifies an object whatever the version in which it is written.
type ID struct {
	schema.GroupKind
	Namespace, Name string
}

// IDOf returns an object's ID. A namespaced object may leave out its namespace: it is then in the given one.
func IDOf(obj *unstructured.Unstructured, namespace string) ID {
	id := ID{obj.GroupVersionKind().GroupKind(), obj.GetNamespace(), obj.GetName()}
	if id.Namespace == "" {
		id.Namespace = namespace
	}
	return id
}

// Read reads the objects of a file, or of all manifests (*.yaml, *.yml, *.json) in a folder and the folders below it,
// in the order of their paths, and checks each strictly (see Check). Hidden files and folders are skipped. An object
// that names no namespace is taken to be in the given one. Where several files hold the same object, identical copies
// count once.
//
// Errors: a file that cannot be read or decoded, an object that Check refuses, one object with different contents in
// two places, a folder or file without any object, and a kustomization, which has to be rendered first.
func Read(path, namespace string) ([]Object, error) {
	files, err := list(path)
	if err != nil {
		return nil, err
	}
	var objs []Object
	var faults []error
	first := map[ID]Object{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := Decode(data)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", file, err))
			continue
		}
		for _, content := range found {
			obj := Object{content, file}
			if err := Check(content); err != nil {
				faults = append(faults, eachWith(file, err)...)
				continue
			}
			id := IDOf(content, namespace)
			earlier, twice := first[id]
			switch {
			case !twice:
				first[id] = obj
				objs = append(objs, obj)
			case !same(earlier, obj):
				faults = append(faults, fmt.Errorf("%s: %s is also in %s, with other contents; keep one of them",
					file, Name(content), earlier.File))
			}
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if len(objs) == 0 {
		return nil, fmt.Errorf("%s holds no Kubernetes object", path)
	}
	return objs, nil
}

// eachWith puts the file's name before each of the errors that err joins.
func eachWith(file string, err error) []error {
	faults := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		faults = slices.Clone(joined.Unwrap())
	}
	for i, fault := range faults {
		faults[i] = fmt.Errorf("%s: %w", file, fault)
	}
	return faults
}

// same says whether two copies of an object are identical, but for a namespace that one of them leaves out.
func same(a, b Object) bool {
	a.Unstructured, b.Unstructured = a.DeepCopy(), b.DeepCopy()
	for _, obj := range []Object{a, b} {
		unstructured.RemoveNestedField(obj.Object, "metadata", "namespace")
	}
	return reflect.DeepEqual(a.Object, b.Object)
}

// list returns the manifest files at a path.
func list(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, refuseKustomization(path)
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case file != path && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		if err := refuseKustomization(file); err != nil {
			return err
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(file)) {
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("folder %s holds no manifest (*.yaml, *.yml, *.json)", path)
	}
	return files, nil
}

// refuseKustomization refuses the files that kustomize takes its instructions from (kustomize, api/konfig/general.go,
// RecognizedKustomizationFileNames): what they describe exists only once it is rendered.
func refuseKustomization(file string) error {
	switch filepath.Base(file) {
	case "kustomization.yaml", "kustomization.yml", "Kustomization":
		return fmt.Errorf("%s is for kustomize, which has to render it first: "+
			"`kubectl kustomize %s > rendered.yaml`, then use rendered.yaml", file, filepath.Dir(file))
	}
	return nil
}
