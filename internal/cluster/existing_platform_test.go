package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream"
)

// platformNodes reads nodes as their distributions make them, less what is of no interest here.
func platformNodes(t *testing.T, name string) []corev1.Node {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "platforms", name+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var list corev1.NodeList
	if err := yaml.UnmarshalStrict(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestPlatforms renders the istio-cni chart with each platform's values: the DaemonSet mounts the folders that the
// platform's container runtime uses.
func TestPlatforms(t *testing.T) {
	charts := upstream.New("../..")
	for _, tt := range []struct{ nodes, name, plugins, configuration, namespaces string }{
		{"kind", "", "/opt/cni/bin", "/etc/cni/net.d", "/var/run/netns"},
		{"k3s", "k3s", "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"},
		{
			"k3s-1.32.2", "k3s", "/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d",
			"/var/run/netns",
		},
		{"k3d", "k3d", "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"},
		{"k3d-1.32.1", "k3d", "/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"},
		{"minikube", "minikube", "/opt/cni/bin", "/etc/cni/net.d", "/var/run/docker/netns"},
		{"minikube-containerd", "", "/opt/cni/bin", "/etc/cni/net.d", "/var/run/netns"},
		{
			"microk8s", "microk8s", "/var/snap/microk8s/current/opt/cni/bin",
			"/var/snap/microk8s/current/args/cni-network", "/var/run/netns",
		},
		{"docker-desktop", "", "/opt/cni/bin", "/etc/cni/net.d", "/var/run/netns"},
		{"gke", "gke", "/home/kubernetes/bin", "/etc/cni/net.d", "/var/run/netns"},
		{"openshift", "openshift", "/var/lib/cni/bin", "/etc/cni/multus/net.d", "/var/run/netns"},
	} {
		t.Run(tt.nodes, func(t *testing.T) {
			platform := PlatformOf(platformNodes(t, tt.nodes))
			if platform.Name != tt.name {
				t.Errorf("recognized %q, want %q", platform.Name, tt.name)
			}
			values := func() map[string]any {
				all := map[string]any{"profile": "ambient"}
				for key, value := range platform.Values() {
					all[key] = value
				}
				return all
			}
			cni := values()
			for key, value := range platform.CNI {
				cni[key] = value
			}
			rendered, err := charts.Istio(
				t.Context(), upstream.IstioValues{Base: values(), Istiod: values(), Ztunnel: values(), CNI: cni},
			)
			if err != nil {
				t.Fatal(err)
			}
			paths := hostPaths(t, rendered[upstream.CNI])
			if paths["cni-bin-dir"] != tt.plugins || paths["cni-net-dir"] != tt.configuration ||
				paths["cni-netns-dir"] != tt.namespaces {
				t.Errorf("mounted: %v", paths)
			}
		})
	}
}

func hostPaths(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	paths := make(map[string]string)
	for _, object := range objects {
		if object.GetKind() != "DaemonSet" {
			continue
		}
		var set appsv1.DaemonSet
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &set); err != nil {
			t.Fatal(err)
		}
		for _, volume := range set.Spec.Template.Spec.Volumes {
			if volume.HostPath != nil {
				paths[volume.Name] = volume.HostPath.Path
			}
		}
	}
	return paths
}

func TestLoadBalancerOfTheCluster(t *testing.T) {
	service := func(name string, kind corev1.ServiceType, address string, labels map[string]string) runtime.Object {
		s := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "theirs", Name: name, Labels: labels},
			Spec:       corev1.ServiceSpec{Type: kind},
		}
		if address != "" {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
		}
		return s
	}
	named := func(name, id string) runtime.Object {
		n := workerNode(name, "10.0.0.1", corev1.ConditionTrue)
		n.Spec.ProviderID = id
		return n
	}
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		want    string
	}{
		{name: "nothing", objects: []runtime.Object{named("n1", "kind://docker/theirs/n1")}},
		{
			name:    "a Service with an address",
			objects: []runtime.Object{service("traefik", corev1.ServiceTypeLoadBalancer, "172.18.0.3", nil)},
			want:    "theirs/traefik",
		},
		{
			name:    "a Service without one",
			objects: []runtime.Object{service("traefik", corev1.ServiceTypeLoadBalancer, "", nil)},
		},
		{name: "another type", objects: []runtime.Object{service("web", corev1.ServiceTypeClusterIP, "", nil)}},
		{
			name: "a gateway of Istio",
			objects: []runtime.Object{
				service("gateway-istio", corev1.ServiceTypeLoadBalancer, "172.18.255.240",
					map[string]string{"gateway.istio.io/managed": "istio.io-gateway-controller"}),
			},
		},
		{name: "a cloud", objects: []runtime.Object{named("n1", "gce://project/zone/n1")}, want: "gce://"},
		{name: "Docker Desktop", objects: []runtime.Object{named("docker-desktop", "")}, want: "Docker Desktop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := existing(t, minesOnly, "v1.36.3", nil, tt.objects...).LoadBalancer(t.Context())
			if err != nil || !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

func TestUnsuitableClusters(t *testing.T) {
	cilium := func(data map[string]string) runtime.Object {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "cilium-config"},
			Data:       data,
		}
	}
	istiod := func(namespace string, labels map[string]string) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "istiod", Labels: labels}}
	}
	for _, tt := range []struct {
		name   string
		object runtime.Object
		says   []string
	}{
		{
			name:   "Cilium's defaults",
			object: cilium(map[string]string{"cni-exclusive": "true", "kube-proxy-replacement": "false"}),
			says:   []string{"cni-exclusive", "cni.exclusive=false"},
		},
		{
			name:   "Cilium in the place of kube-proxy",
			object: cilium(map[string]string{"cni-exclusive": "false", "kube-proxy-replacement": "true"}),
			says:   []string{"bpf-lb-sock-hostns-only", "socketLB.hostNamespaceOnly=true"},
		},
		{
			name:   "Cilium's socket load balancer",
			object: cilium(map[string]string{"cni-exclusive": "false", "bpf-lb-sock": "true"}),
			says:   []string{"socketLB.hostNamespaceOnly=true"},
		},
		{
			name:   "Cilium's masquerading",
			object: cilium(map[string]string{"cni-exclusive": "false", "enable-bpf-masquerade": "true"}),
			says:   []string{"bpf.masquerade=false"},
		},
		{
			name: "Cilium as Istio wants it",
			object: cilium(map[string]string{
				"cni-exclusive": "false", "kube-proxy-replacement": "true",
				"bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "true",
			}),
		},
		{
			name: "a sidecar Istio", object: istiod("istio-system", map[string]string{"app": "istiod"}),
			says: []string{"istio-system/istiod", "did not install"},
		},
		{
			name:   "a revision elsewhere",
			object: istiod("mesh", map[string]string{"app": "istiod", "istio.io/rev": "1-20"}),
			says:   []string{"mesh/istiod"},
		},
		{
			name:   "a lab's Istio",
			object: istiod("istio-system", map[string]string{"app": "istiod", apply.LabelName: "ambient"}),
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := existing(t, minesOnly, "v1.36.3", nil, tt.object).Create(t.Context())
			if tt.says == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !problem.Is(err, problem.ClusterUnsuitable) {
				t.Fatalf("got %v", err)
			}
			text := err.Error() + strings.Join(problem.All(err)[0].Advice, " ")
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("%q is not in %s", want, text)
				}
			}
		})
	}
}
