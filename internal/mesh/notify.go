package mesh

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
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
		List(ctx, metav1.ListOptions{LabelSelector: GatewayLabel + "=" + gateway})
	if err != nil {
		return nil, fmt.Errorf("listing the Services of Gateway %s/%s: %w", namespace, gateway, err)
	}
	for _, service := range list.Items {
		if err := m.label(ctx, &service); err != nil {
			return nil, err
		}
		services = append(services, service.Name)
	}
	return services, nil
}

// notifyService makes istiod send the endpoints of a Service again, in the same way.
func (m *Mesh) notifyService(ctx context.Context, namespace, name string) error {
	service, err := m.kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading Service %s/%s: %w", namespace, name, err)
	}
	return m.label(ctx, service)
}

// label changes the label without meaning: the resource version differs each time.
func (m *Mesh) label(ctx context.Context, service *corev1.Service) error {
	patch, err := json.Marshal(
		map[string]any{"metadata": map[string]any{
			"labels": map[string]string{notifiedLabel: service.ResourceVersion},
		}})
	if err != nil {
		return err
	}
	_, err = m.kube.CoreV1().Services(service.Namespace).
		Patch(ctx, service.Name, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: "ambientlab-notifier"})
	if err != nil {
		return fmt.Errorf("labelling Service %s/%s: %w", service.Namespace, service.Name, err)
	}
	return nil
}
