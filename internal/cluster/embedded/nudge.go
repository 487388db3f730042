package embedded

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// nudge touches the CustomResourceDefinitions that the API server accepted and, because it was ended at that moment,
// did not begin to serve. It serves such a one at the next change of it (apiextensions-apiserver, crdHandler's
// updateCustomResourceDefinition), and that would otherwise be its own look at everything again, five minutes later.
func (e *Embedded) nudge(ctx context.Context) error {
	config, err := e.RESTConfig(ctx)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	crds := objects.Resource(
		schema.GroupVersionResource{
			Group: "apiextensions.k8s.io", Version: "v1",
			Resource: "customresourcedefinitions",
		})
	list, err := crds.List(ctx, v1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing CustomResourceDefinitions: %w", err)
	}
	for i := range list.Items {
		if !stranded(&list.Items[i]) {
			continue
		}
		patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"lab.opssec.in/nudged":%q}}}`,
			time.Now().UTC().Format(time.RFC3339Nano))
		if _, err := crds.Patch(ctx, list.Items[i].GetName(), types.MergePatchType, patch,
			v1.PatchOptions{}); err != nil {
			return fmt.Errorf("touching CustomResourceDefinition %s: %w", list.Items[i].GetName(), err)
		}
	}
	return nil
}

// stranded tells whether a CustomResourceDefinition has its names and is not served.
func stranded(crd *unstructured.Unstructured) bool {
	status := map[any]any{}
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, item := range conditions {
		condition, _ := item.(map[string]any)
		status[condition["type"]] = condition["status"]
	}
	return status["NamesAccepted"] == "True" && status["Established"] != "True"
}
