package mesh

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// remindedLabel is what Remind changes on a Service. istiod counts a change of labels as one of the Service; one of
// annotations it does not notice (ServiceAttributes.Equals in its pilot/pkg/model/service.go).
const remindedLabel = "lab.opssec.in/reminded"

// Remind makes istiod look again at what stands behind a Gateway: it computes the Gateway's status anew when a Service
// changes, and so it is given a change, a label of no meaning on the Services that it made for the Gateway. They are
// named in what is returned; they and the label go when the Gateway does.
func (m *Mesh) Remind(ctx context.Context, namespace, gateway string) (services []string, err error) {
	list, err := m.kube.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{LabelSelector: gatewayLabel + "=" + gateway})
	if err != nil {
		return nil, fmt.Errorf("listing the Services of Gateway %s/%s: %w", namespace, gateway, err)
	}
	for _, service := range list.Items {
		// The version is another one each time, and needs no clock.
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{remindedLabel: service.ResourceVersion}}})
		if err != nil {
			return nil, err
		}
		_, err = m.kube.CoreV1().Services(namespace).Patch(ctx, service.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "ambientlab-reminder"})
		if err != nil {
			return nil, fmt.Errorf("labelling Service %s/%s: %w", namespace, service.Name, err)
		}
		services = append(services, service.Name)
	}
	return services, nil
}
