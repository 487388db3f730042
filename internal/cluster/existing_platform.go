package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
)

// Platform is a Kubernetes distribution whose nodes differ from what Istio's charts expect by default
// (https://istio.io/latest/docs/ambient/install/platform-prerequisites/).
type Platform struct {
	// Name is empty where the defaults fit.
	Name string
	// CNI are values of the istio-cni chart.
	CNI map[string]any
}

// plugins are values of the istio-cni chart for a folder of CNI plug-ins. Under the key cni they win over the
// platform's own (istio, manifests/charts/istio-cni/templates/zzz_profile.yaml).
func plugins(folder string) map[string]any {
	return map[string]any{"cni": map[string]any{"cniBinDir": folder}}
}

// Values are the values of each of Istio's charts, which know most platforms by name.
func (p Platform) Values() map[string]any {
	if p.Name == "" {
		return nil
	}
	return map[string]any{"global": map[string]any{"platform": p.Name}}
}

// The folders of k3s in which the container runtime looks for CNI plug-ins
// (https://docs.k3s.io/networking/basic-network-options). The first is used since 1.32.3 (k3s-io/k3s#11076), and before
// that the second, or the third in k3d's images.
const (
	k3sPlugins    = "/var/lib/rancher/k3s/data/cni"
	k3sOldPlugins = "/var/lib/rancher/k3s/data/current/bin"
	k3dOldPlugins = "/bin"
)

// PlatformOf recognizes the platform by its nodes.
func PlatformOf(nodes []corev1.Node) Platform {
	for i := range nodes {
		n := &nodes[i]
		kubelet := n.Status.NodeInfo.KubeletVersion
		switch {
		case hasLabel(n, "minikube.k8s.io/"):
			// With another container runtime than Docker the pods' network namespaces are where the charts expect them.
			if strings.HasPrefix(n.Status.NodeInfo.ContainerRuntimeVersion, "docker://") {
				return Platform{Name: "minikube"}
			}
		case strings.Contains(kubelet, "+k3s"):
			return k3s(n.Name, kubelet)
		case hasLabel(n, "microk8s.io/"):
			return Platform{Name: "microk8s"}
		case hasLabel(n, "cloud.google.com/gke-"), strings.Contains(kubelet, "-gke."):
			// The chart would find this folder by the API server's version, which the lab does not render it with.
			return Platform{Name: "gke", CNI: plugins("/home/kubernetes/bin")}
		case hasLabel(n, "node.openshift.io/"):
			return Platform{Name: "openshift"}
		}
	}
	return Platform{}
}

func k3s(node, kubelet string) Platform {
	name, folder, old := "k3s", k3sPlugins, k3sOldPlugins
	if strings.HasPrefix(node, "k3d-") {
		name, old = "k3d", k3dOldPlugins
	}
	if v, err := version.ParseGeneric(kubelet); err == nil && !v.AtLeast(version.MustParseGeneric("1.32.3")) {
		folder = old
	}
	return Platform{Name: name, CNI: plugins(folder)}
}

func hasLabel(n *corev1.Node, prefix string) bool {
	for label := range n.Labels {
		if strings.HasPrefix(label, prefix) {
			return true
		}
	}
	return false
}

// clouds are the prefixes of provider IDs of clouds whose clusters have a load balancer.
var clouds = []string{
	"aws://", "azure://", "digitalocean://", "gce://", "hcloud://", "ibm://", "linode://", "ocid1.", "openstack://",
	"ovhcloud://", "scaleway://", "vultr://",
}

// balancer names what gives addresses to Services of type LoadBalancer, or is empty where nothing is known to. Gateways
// of Istio are not looked at: one may have had its address from the lab.
func balancer(nodes []corev1.Node, services []corev1.Service) string {
	for i := range services {
		s := &services[i]
		if _, gateway := s.Labels["gateway.istio.io/managed"]; gateway ||
			s.Spec.Type != corev1.ServiceTypeLoadBalancer ||
			len(s.Status.LoadBalancer.Ingress) == 0 {
			continue
		}
		return fmt.Sprintf("what gave Service %s/%s its address", s.Namespace, s.Name)
	}
	for i := range nodes {
		n := &nodes[i]
		if n.Name == "docker-desktop" || n.Name == "desktop-control-plane" {
			return "Docker Desktop"
		}
		if slices.ContainsFunc(clouds,
			func(prefix string) bool { return strings.HasPrefix(n.Spec.ProviderID, prefix) }) {
			return n.Spec.ProviderID
		}
	}
	return ""
}

// LoadBalancer names what gives addresses to Services of type LoadBalancer in the cluster, or is empty where nothing is
// known to.
func (e *Existing) LoadBalancer(ctx context.Context) (string, error) {
	kube, nodes, err := e.nodeObjects(ctx)
	if err != nil {
		return "", err
	}
	services, err := kube.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", problem.New(problem.ClusterUnreachable, err, "listing the cluster's Services")
	}
	return balancer(nodes, services.Items), nil
}

// Platform recognizes the platform of the cluster.
func (e *Existing) Platform(ctx context.Context) (Platform, error) {
	_, nodes, err := e.nodeObjects(ctx)
	return PlatformOf(nodes), err
}

func (e *Existing) nodeObjects(ctx context.Context) (kubernetes.Interface, []corev1.Node, error) {
	info, kube, nodes, silent, err := e.listNodes(ctx)
	if silent != nil {
		err = unanswered(info, silent)
	}
	return kube, nodes, err
}

// suitable refuses a cluster in which something prevents an ambient mesh of the lab's from working.
func suitable(ctx context.Context, kube kubernetes.Interface, info Info) error {
	cilium, err := kube.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, "cilium-config", metav1.GetOptions{})
	switch {
	case err == nil:
		if err := checkCilium(cilium.Data, info); err != nil {
			return err
		}
	case !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err):
		return problem.New(problem.ClusterUnreachable, err, "asking %s for Cilium's configuration", info.Server)
	}
	istiods, err := kube.AppsV1().
		Deployments(metav1.NamespaceAll).
		List(ctx, metav1.ListOptions{LabelSelector: "app=istiod"})
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case err != nil:
		return problem.New(problem.ClusterUnreachable, err, "asking %s for other installations of Istio", info.Server)
	}
	for _, istiod := range istiods.Items {
		if istiod.Labels[apply.LabelName] == "" {
			return problem.New(problem.ClusterUnsuitable, nil,
				"the cluster of context %s has an Istio that the lab did not install: Deployment %s/%s", info.Context,
				istiod.Namespace, istiod.Name).
				With("Use another cluster, or uninstall that Istio: two of them change the same CRDs, " +
					"webhooks and pods.")
		}
	}
	return nil
}

// checkCilium refuses settings that keep istio-cni or ztunnel from getting the pods' traffic
// (https://istio.io/latest/docs/ambient/install/platform-prerequisites/#cilium). The defaults are those of Cilium's
// agent and of its chart, which writes this ConfigMap.
func checkCilium(config map[string]string, info Info) error {
	var wrong, values []string
	if config["cni-exclusive"] != "false" {
		wrong = append(wrong, "removes other CNI plug-ins (cni-exclusive)")
		values = append(values, "cni.exclusive=false")
	}
	replaces := config["kube-proxy-replacement"] == "true" || config["kube-proxy-replacement"] == "strict"
	if (replaces || config["bpf-lb-sock"] == "true") && config["bpf-lb-sock-hostns-only"] != "true" {
		wrong = append(wrong, "balances load in the pods' sockets (bpf-lb-sock-hostns-only is not true)")
		values = append(values, "socketLB.hostNamespaceOnly=true")
	}
	if config["enable-bpf-masquerade"] == "true" {
		wrong = append(wrong,
			"masquerades with eBPF, which drops the answers to the kubelet's probes (enable-bpf-masquerade)")
		values = append(values, "bpf.masquerade=false")
	}
	if len(wrong) == 0 {
		return nil
	}
	return problem.New(problem.ClusterUnsuitable, nil, "Cilium in the cluster of context %s %s", info.Context,
		strings.Join(wrong, "; it ")).
		With("Change Cilium's chart: helm upgrade cilium cilium/cilium -n kube-system --reuse-values --set " +
			strings.Join(values, " --set "))
}
