package mesh

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"
)

// DefaultTrustDomain is Istio's, where its mesh configuration names none.
const DefaultTrustDomain = "cluster.local"

// TrustDomain reads the trust domain of the mesh from the mesh configuration that istiod uses: ConfigMap istio of its
// namespace. Without one it is the default.
//
// An Envoy proxy takes cluster.local in a policy for the mesh's own trust domain, whatever that is
// (pilot/pkg/security/trustdomain/bundle.go); ztunnel gets the text as it is
// (pilot/pkg/serviceregistry/ambient/authorization.go). So policies must name the real one.
func TrustDomain(ctx context.Context, kube kubernetes.Interface) (string, error) {
	config, err := kube.CoreV1().ConfigMaps(istiodNamespace).Get(ctx, "istio", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return DefaultTrustDomain, nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the mesh configuration: %w", err)
	}
	return trustDomainOf(config)
}

func trustDomainOf(config *corev1.ConfigMap) (string, error) {
	var settings struct {
		TrustDomain string `json:"trustDomain"`
	}
	if err := yaml.Unmarshal([]byte(config.Data["mesh"]), &settings); err != nil {
		return "", fmt.Errorf("reading the mesh configuration in ConfigMap %s/%s: %w", config.Namespace, config.Name,
			err)
	}
	if settings.TrustDomain == "" {
		return DefaultTrustDomain, nil
	}
	return settings.TrustDomain, nil
}

// RefusedValues says which Helm values of Istio's charts, by chart, the lab cannot work with, and why.
func RefusedValues(charts map[string]map[string]any) []string {
	var refused []string
	refuse := func(chart string, accepted, why string, path ...string) {
		value := any(charts[chart])
		name := chart
		for _, key := range path {
			fields, _ := value.(map[string]any)
			value, name = fields[key], name+"."+key
		}
		if value != nil && value != "" && value != accepted {
			refused = append(refused, fmt.Sprintf("%s=%v: %s", name, value, why))
		}
	}
	for _, chart := range slices.Sorted(maps.Keys(charts)) {
		// pkg/revisions/tag_watcher.go: a Gateway without the label istio.io/rev belongs to the default revision.
		refuse(chart, "", "an istiod with a revision ignores the lab's Gateways, which have no label istio.io/rev",
			"revision")
		refuse(chart, DefaultClusterDomain, "the lab's host names end in svc."+DefaultClusterDomain, "global", "proxy",
			"clusterDomain")
		refuse(chart, istiodNamespace, "the lab installs Istio in namespace "+istiodNamespace, "global",
			"istioNamespace")
	}
	return refused
}

// DefaultClusterDomain is the DNS domain of a cluster's Services, unless its kubelets are set up otherwise.
const DefaultClusterDomain = "cluster.local"
