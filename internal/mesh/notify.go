package mesh

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// notifiedLabel is what Notify changes on a Service. istiod counts a change of labels as a change of the Service; a
// change of annotations it ignores (pilot/pkg/model/service.go, ServiceAttributes.Equals).
const notifiedLabel = "lab.opssec.in/notified"

// Notify makes istiod compute the status of a Gateway again, which it does when one of the Gateway's Services changes:
// it sets a label without meaning on the Services that istiod made for the Gateway, and returns their names. They are
// deleted with the Gateway.
func (m *Mesh) Notify(ctx context.Context, namespace, gateway string) (services []string, err error) {
	list, err := m.kube.CoreV1().Services(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: gatewayLabel + "=" + gateway})
	if err != nil {
		return nil, fmt.Errorf("listing the Services of Gateway %s/%s: %w", namespace, gateway, err)
	}
	for _, service := range list.Items {
		// The resource version differs each time.
		patch, err := json.Marshal(
			map[string]any{"metadata": map[string]any{
				"labels": map[string]string{notifiedLabel: service.ResourceVersion},
			}})
		if err != nil {
			return nil, err
		}
		_, err = m.kube.CoreV1().Services(namespace).
			Patch(ctx, service.Name, types.MergePatchType, patch,
				metav1.PatchOptions{FieldManager: "ambientlab-notifier"})
		if err != nil {
			return nil, fmt.Errorf("labelling Service %s/%s: %w", namespace, service.Name, err)
		}
		services = append(services, service.Name)
	}
	return services, nil
}
