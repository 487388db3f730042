package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"ambientlab/internal/problem"
)

// Where ztunnel runs: a DaemonSet of Istio's own namespace (manifests/charts/ztunnel/templates/daemonset.yaml).
const (
	istiodNamespace = "istio-system"
	ztunnelSelector = "app=ztunnel"
)

// nodeProxy is the ztunnel of one node, which enforces the policies that have a selector.
type nodeProxy interface {
	// Policies lists those that it knows, as namespace/name.
	Policies(ctx context.Context) ([]string, error)
	Close() error
}

// ztunnel is one that is asked by port-forward. Its admin interface listens where Envoy's does (ztunnel, src/config.rs,
// DEFAULT_ADMIN_PORT), and has a /config_dump of its own.
type ztunnel struct{ *Admin }

// Policies implements nodeProxy. The fields are those that istioctl reads
// (istioctl/pkg/writer/ztunnel/configdump/api.go, ZtunnelPolicy).
func (z ztunnel) Policies(ctx context.Context) ([]string, error) {
	body, err := z.Get(ctx, "/config_dump")
	if err != nil {
		return nil, err
	}
	var dump struct {
		Policies *[]struct{ Name, Namespace string }
	}
	if err := json.Unmarshal(body, &dump); err != nil {
		return nil, fmt.Errorf("reading the dump of the ztunnel in %s: %w", z.tunnel, err)
	}
	if dump.Policies == nil {
		return nil, fmt.Errorf("reading the dump of the ztunnel in %s: %w", z.tunnel,
			errors.New("it has no list of policies"))
	}
	names := make([]string, 0, len(*dump.Policies))
	for _, policy := range *dump.Policies {
		names = append(names, policy.Namespace+"/"+policy.Name)
	}
	return names, nil
}

// policyAtZtunnels says which ztunnel on a node with a pod of a Service does not have a policy that is wanted, or still
// enforces one that is not.
func (p *proxies) policyAtZtunnels(
	ctx context.Context, s Service, namespace, name string, wanted bool,
) (*problem.Problem, error) {
	if p.mesh.nodeProxy == nil {
		return nil, nil // no packets flow, so there is no ztunnel to ask and nothing enforces a policy
	}
	pods, err := p.mesh.ztunnelsOf(ctx, s)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		known, err := p.ofNode(&pods[i]).Policies(ctx)
		if err != nil {
			return nil, err
		}
		if slices.Contains(known, namespace+"/"+name) == wanted {
			continue
		}
		reason := "ztunnel on node %s still enforces policy %s"
		if wanted {
			reason = "ztunnel on node %s does not have policy %s yet"
		}
		return problem.New(problem.ConfigNotArrived, nil, reason, pods[i].Spec.NodeName, name), nil
	}
	return nil, nil
}

// ztunnels lists the pods of ztunnel.
func (m *Mesh) ztunnels(ctx context.Context) ([]corev1.Pod, error) {
	pods, err := m.kube.CoreV1().Pods(istiodNamespace).List(ctx, metav1.ListOptions{LabelSelector: ztunnelSelector})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of ztunnel: %w", err)
	}
	return pods.Items, nil
}

// ztunnelsOf lists the ztunnels that run on the nodes of a Service's pods.
func (m *Mesh) ztunnelsOf(ctx context.Context, s Service) ([]corev1.Pod, error) {
	service, err := m.service(ctx, s.Namespace, s.Name)
	if err != nil || service == nil {
		return nil, err
	}
	behind, err := m.kube.CoreV1().Pods(s.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: labels.SelectorFromSet(service.Spec.Selector).String()})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of Service %s: %w", s.Name, err)
	}
	ztunnels, err := m.ztunnels(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(ztunnels, func(z corev1.Pod) bool {
		return z.Status.Phase != corev1.PodRunning || z.DeletionTimestamp != nil ||
			!slices.ContainsFunc(behind.Items,
				func(pod corev1.Pod) bool { return pod.Spec.NodeName == z.Spec.NodeName })
	}), nil
}
