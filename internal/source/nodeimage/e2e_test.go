//go:build e2e

package nodeimage_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/client"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"

	"ambientlab/internal/source"
	"ambientlab/internal/source/nodeimage"
)

const (
	netcheckRef = "localhost/ambientlab/netcheck:e2e"
	hostPort    = 8088

	threeNodes = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
nodes: [{role: control-plane}, {role: worker}, {role: worker}]
`
)

// TestThreeNodes builds the node image, boots three nodes on it and sends traffic from every node's pod to every
// other's. It needs Linux, root and a Docker engine on the same machine.
func TestThreeNodes(t *testing.T) {
	ctx := t.Context()
	buildAndLoad(ctx, t)
	begin := time.Now()
	name := fmt.Sprintf("nodeimage-e2e-%d", os.Getpid())
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	provider := cluster.NewProvider(cluster.ProviderWithDocker())
	t.Cleanup(func() {
		if err := provider.Delete(name, kubeconfig); err != nil {
			t.Errorf("deleting the cluster: %v", err)
		}
	})
	must(t, provider.Create(name, cluster.CreateWithNodeImage(nodeimage.Ref),
		cluster.CreateWithRawConfig([]byte(threeNodes)),
		cluster.CreateWithKubeconfigPath(kubeconfig), cluster.CreateWithDisplayUsage(false)))
	t.Logf("kind create cluster, three nodes: %s", since(begin))

	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	must(t, err)
	cs, err := kubernetes.NewForConfig(config)
	must(t, err)
	nodes := readyNodes(ctx, t, cs)
	t.Logf("three nodes Ready: %s", since(begin))

	begin = time.Now()
	loadNetcheck(t, provider, name)
	t.Logf("netcheck loaded into the nodes: %s", since(begin))
	begin = time.Now()
	pods := deployNetcheck(ctx, t, cs)
	t.Logf("three pods ready: %s", since(begin))

	gateway, seen := hostServer(ctx, t)
	for node, pod := range pods {
		for other, otherPod := range pods {
			if node == other {
				continue
			}
			// The source must be the pod's own address: between pods nothing is masqueraded.
			expect(t, node+" to the pod on "+other, fetch(t, nodes[node], "http://"+otherPod+":8080/"), other+" "+pod)
		}
		// A Service by its name: DNS, kube-proxy and any of the pods.
		answer := fetch(t, nodes[node], "http://netcheck.default.svc.cluster.local/")
		if by, _, _ := strings.Cut(answer, " "); pods[by] == "" {
			t.Errorf("%s to the Service by name: got %q", node, answer)
		}
		// Out of the pod network, a pod has its node's address.
		expect(t, node+" to the Docker host", fetch(t, nodes[node], gateway), "host")
		expect(t, node+" as the Docker host sees it", <-seen, nodes[node])
	}
	t.Log("every pod reached every other by address, the Service by name, and the Docker host")
}

func buildAndLoad(ctx context.Context, t *testing.T) {
	t.Helper()
	cache, err := os.UserCacheDir()
	must(t, err)
	binaries, err := source.New(source.Options{})
	must(t, err)
	opts := nodeimage.Options{Binaries: binaries, CacheDir: filepath.Join(cache, "ambientlab", "nodeimage")}
	var digests []v1.Hash
	var image nodeimage.Image
	for range 2 {
		begin := time.Now()
		image, err = nodeimage.Build(ctx, opts)
		must(t, err)
		digest, err := image.Image.Digest()
		must(t, err)
		digests = append(digests, digest)
		t.Logf("built %s in %s", digest, since(begin))
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds of the same inputs differ: %v", digests)
	}
	layers, err := image.Image.Layers()
	must(t, err)
	for _, layer := range layers {
		size, err := layer.Size()
		must(t, err)
		t.Logf("layer of %d MiB", size>>20)
	}
	begin := time.Now()
	docker, err := client.New(client.FromEnv)
	must(t, err)
	defer docker.Close()
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(name.MustParseReference(nodeimage.Ref), image.Image, w)) }()
	loaded, err := docker.ImageLoad(ctx, r)
	must(t, err)
	said, err := io.ReadAll(loaded)
	must(t, err)
	must(t, loaded.Close())
	if !bytes.Contains(said, []byte("Loaded image: "+nodeimage.Ref)) {
		t.Fatalf("Docker did not load the node image: %s", said)
	}
	inspect, err := docker.ImageInspect(ctx, nodeimage.Ref)
	must(t, err)
	t.Logf("loaded into Docker in %s: %d MB there", since(begin), inspect.Size/1e6)
	if inspect.Config.Labels["lab.substitute"] != nodeimage.Substitute {
		t.Errorf("the image does not say that it is a substitute: %v", inspect.Config.Labels)
	}
}

// readyNodes waits until all three nodes are ready and gives their addresses.
func readyNodes(ctx context.Context, t *testing.T, cs kubernetes.Interface) map[string]string {
	t.Helper()
	addresses := map[string]string{}
	eventually(ctx, t, "three nodes are Ready", func(ctx context.Context) (bool, error) {
		list, err := cs.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		ready := 0
		for _, node := range list.Items {
			if slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
				return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
			for _, a := range node.Status.Addresses {
				if a.Type == corev1.NodeInternalIP {
					addresses[node.Name] = a.Address
				}
			}
		}
		return ready == 3, nil
	})
	return addresses
}

// loadNetcheck builds the test's program, makes an image of it and puts it into all nodes.
func loadNetcheck(t *testing.T, provider *cluster.Provider, clusterName string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "netcheck")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/netcheck")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building netcheck: %v\n%s", err, out)
	}
	content, err := os.ReadFile(program)
	must(t, err)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	must(t, w.WriteHeader(&tar.Header{Name: "netcheck", Mode: 0o755, Size: int64(len(content))}))
	_, err = w.Write(content)
	must(t, err)
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	must(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/netcheck"}})
	must(t, err)
	var archive bytes.Buffer
	must(t, tarball.Write(name.MustParseReference(netcheckRef), image, &archive))
	nodes, err := provider.ListInternalNodes(clusterName)
	must(t, err)
	for _, node := range nodes {
		must(t, nodeutils.LoadImageArchive(node, bytes.NewReader(archive.Bytes())))
	}
}

// deployNetcheck runs a pod on each node behind one Service, and gives the pods' addresses by node.
func deployNetcheck(ctx context.Context, t *testing.T, cs kubernetes.Interface) map[string]string {
	t.Helper()
	labels := map[string]string{"app": "netcheck"}
	_, err := cs.AppsV1().DaemonSets("default").Create(ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "netcheck"},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
					Containers: []corev1.Container{{
						Name: "netcheck", Image: netcheckRef, ImagePullPolicy: corev1.PullNever,
						Ports: []corev1.ContainerPort{{ContainerPort: 8080, HostPort: hostPort}},
						Env: []corev1.EnvVar{{Name: "NODE", ValueFrom: &corev1.EnvVarSource{
							FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"},
						}}},
						ReadinessProbe: &corev1.Probe{
							PeriodSeconds: 1,
							ProbeHandler: corev1.ProbeHandler{
								HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)},
							},
						},
					}},
				},
			},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = cs.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "netcheck"},
		Spec: corev1.ServiceSpec{
			Selector: labels,
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	eventually(ctx, t, "netcheck and DNS are ready", func(ctx context.Context) (bool, error) {
		ds, err := cs.AppsV1().DaemonSets("default").Get(ctx, "netcheck", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		dns, err := cs.AppsV1().Deployments("kube-system").Get(ctx, "coredns", metav1.GetOptions{})
		return err == nil && ds.Status.NumberReady == 3 && dns.Status.ReadyReplicas > 0, err
	})
	pods, err := cs.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=netcheck"})
	must(t, err)
	addresses := map[string]string{}
	for _, pod := range pods.Items {
		addresses[pod.Spec.NodeName] = pod.Status.PodIP
	}
	if len(addresses) != 3 {
		t.Fatalf("expected a pod on each of three nodes, got %v", addresses)
	}
	return addresses
}

// hostServer listens on the Docker host, and gives its URL in kind's network and the addresses that ask it.
func hostServer(ctx context.Context, t *testing.T) (string, <-chan string) {
	t.Helper()
	out, err := exec.CommandContext(ctx, "docker", "network", "inspect", "kind").Output()
	must(t, err)
	var networks []struct {
		IPAM struct{ Config []struct{ Gateway string } }
	}
	must(t, json.Unmarshal(out, &networks))
	gateway := ""
	for _, c := range networks[0].IPAM.Config {
		if ip := net.ParseIP(c.Gateway); ip.To4() != nil {
			gateway = c.Gateway
		}
	}
	listener, err := net.Listen("tcp4", net.JoinHostPort(gateway, "0"))
	must(t, err)
	seen := make(chan string, 16)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := strings.Cut(r.RemoteAddr, ":")
		seen <- host
		fmt.Fprint(w, "host")
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return "http://" + listener.Addr().String() + "/", seen
}

// fetch asks the pod of a node, by the node's host port, to fetch a URL.
func fetch(t *testing.T, node, target string) string {
	t.Helper()
	client := &http.Client{Timeout: 15 * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://%s:%d/fetch?url=%s", node, hostPort, url.QueryEscape(target)))
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	return string(body)
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func eventually(ctx context.Context, t *testing.T, what string, done wait.ConditionWithContextFunc) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, 2*time.Minute, true, done); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func since(begin time.Time) time.Duration { return time.Since(begin).Round(10 * time.Millisecond) }
