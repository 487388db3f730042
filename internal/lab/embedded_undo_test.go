package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/lb"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/manifest"
	"ambientlab/internal/problem"
)

// foundCluster is an embedded control plane as a cluster that the lab found: the provider is that of an existing
// cluster, and only what cannot be had without pods is the embedded one's: istiod and MetalLB run as processes.
type foundCluster struct {
	*cluster.Existing
	plane *embedded.Embedded
}

func (f foundCluster) Inspect(ctx context.Context) (cluster.Info, error) {
	info, err := f.Existing.Inspect(ctx)
	info.Packets = false
	return info, err
}

func (f foundCluster) Adapt(list objects) objects { return f.plane.Adapt(list) }

func (f foundCluster) Simulated(object *unstructured.Unstructured) bool {
	return f.plane.Simulated(object)
}

func (f foundCluster) AddressPool(ctx context.Context) (lb.Pool, error) {
	return f.plane.AddressPool(ctx)
}

func (f foundCluster) Started(ctx context.Context, component string) (bool, string, error) {
	return f.plane.Started(ctx, component)
}

func (f foundCluster) Start(ctx context.Context, component string) error {
	return f.plane.Start(ctx, component)
}

func (f foundCluster) Stop(ctx context.Context, component string) error {
	return f.plane.Stop(ctx, component)
}

func (f foundCluster) Stopped() []string { return f.plane.Stopped() }

func (f foundCluster) XDSAddress() (string, error) { return f.plane.XDSAddress() }

func (f foundCluster) Substitutes() (map[string]string, error) { return f.plane.Substitutes() }
func (f foundCluster) WhyNoPackets() string                    { return f.plane.WhyNoPackets() }

// guest is a lab on the bench's control plane that did not create it.
func (b *bench) guest(settings ...string) bed {
	b.t.Helper()
	made := b.lab(append([]string{"SM_PROVIDER=existing"}, settings...)...)
	made.UseProvider(foundCluster{
		cluster.NewExisting(cluster.ExistingOptions{Kubeconfig: made.Settings.Kubeconfig}),
		b.plane(),
	})
	return made
}

// census lists every object of every kind by kind, namespace and name, with its labels and annotations. Only events are
// left out, which come and go by themselves.
func (b *bench) census() map[string]string {
	b.t.Helper()
	client := b.connect()
	lists, err := discovery.ServerPreferredResources(client.Kube().Discovery())
	if err != nil {
		b.t.Fatal(err)
	}
	reader, err := metadata.NewForConfig(client.Config())
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[string]string{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || kind.Kind == "Event" {
				continue
			}
			objects, err := reader.Resource(gv.WithResource(kind.Name)).List(b.t.Context(), metav1.ListOptions{})
			if apierrors.IsNotFound(err) {
				continue // its CRD was deleted a moment ago
			}
			if err != nil {
				b.t.Fatalf("listing %s: %v", kind.Name, err)
			}
			for _, o := range objects.Items {
				all[fmt.Sprintf("%s.%s %s/%s", kind.Kind, gv.Group, o.Namespace, o.Name)] = fmt.Sprint(o.Labels,
					o.Annotations)
			}
		}
	}
	return all
}

// settled takes the census until it is as wanted, or says after a while what differs.
func (b *bench) settled(asItShould func(map[string]string) string) map[string]string {
	b.t.Helper()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var now map[string]string
	difference := "never looked"
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); <-tick.C {
		now = b.census()
		if difference = asItShould(now); difference == "" {
			return now
		}
	}
	b.t.Errorf("the cluster does not come to rest (-want +got):\n%s", difference)
	return now
}

// rest is a census that is twice the same.
func (b *bench) rest() map[string]string {
	var last map[string]string
	return b.settled(func(now map[string]string) string {
		difference := cmp.Diff(last, now)
		last = maps.Clone(now)
		return difference
	})
}

// write puts a file of manifests into a folder of the test's own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// create makes objects as another user of the cluster would.
func (b *bench) create(text string) {
	b.t.Helper()
	list, err := manifest.Decode([]byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, object := range list {
		b.createOne(object)
	}
}

func (b *bench) createOne(object *unstructured.Unstructured) {
	b.t.Helper()
	client := b.connect()
	if err := client.Client().Create(b.t.Context(), object); err != nil {
		b.t.Fatalf("creating %s %s: %v", object.GetKind(), object.GetName(), err)
	}
}

const theirs = `
apiVersion: v1
kind: Namespace
metadata: {name: theirs}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: theirs}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: theirs, namespace: theirs}
spec:
  selector: {matchLabels: {app: theirs}}
  template:
    metadata: {labels: {app: theirs}}
    spec: {containers: [{name: c, image: example.com/theirs}]}
`

const extra = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tools.example.com}
spec:
  group: example.com
  names: {kind: Tool, plural: tools, singular: tool, listKind: ToolList}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: v1
kind: Namespace
metadata: {name: workshop}
---
apiVersion: example.com/v1
kind: Tool
metadata: {name: hammer, namespace: workshop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: toolmaker}
`

const oldGateways = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: gateways.gateway.networking.k8s.io
  annotations:
    api-approved.kubernetes.io: https://github.com/kubernetes-sigs/gateway-api/pull/1923
    gateway.networking.k8s.io/bundle-version: v0.6.2
spec:
  group: gateway.networking.k8s.io
  names: {kind: Gateway, plural: gateways, singular: gateway, listKind: GatewayList}
  scope: Namespaced
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// TestEmbeddedUndo takes a lab into a cluster that it found and away again. Nothing of it may be left, although the
// settings that it was installed with are forgotten by then, and nothing of anybody else's may be gone or changed.
func TestEmbeddedUndo(t *testing.T) {
	b := newBench(t, "undo")
	b.do("a control plane", b.provider().Create)
	b.create(theirs)
	b.oldGatewayAPI()
	b.otherGatewayAPI()
	before := b.rest()

	whole := []string{"SM_METALLB=on", "SM_NAMESPACE=shop", "SM_ADDONS=prometheus", "SM_MANIFESTS=" + write(t, extra)}
	b.do("install", b.guest(whole...).Install)
	says(t, "install", b.talk.String(), "were not installed by the lab", "v1.0.0-theirs")
	b.imagePull()
	b.deselect()

	full := b.guest(whole...)
	b.do("install", full.Install)
	b.do("apps", func(ctx context.Context) error { return full.Apps(ctx, false) })
	b.do("waypoint", func(ctx context.Context) error { return full.Waypoint(ctx, false) })
	b.do("fault", func(ctx context.Context) error { return full.Fault(ctx, params.DefaultFault(), false) })
	b.do("authz", func(ctx context.Context) error { return full.Authz(ctx, "", true, false) })

	b.do("delete", b.guest().Delete)
	b.settled(func(after map[string]string) string { return cmp.Diff(before, after) })
}

// oldGatewayAPI wants a Gateway API that is too old refused before anything is touched.
func (b *bench) oldGatewayAPI() {
	b.t.Helper()
	b.create(oldGateways)
	before := b.rest()
	err := b.fails("install with an old Gateway API", b.guest().Install)
	if !problem.Is(err, problem.GatewayAPIVersion) {
		b.t.Errorf("got %v", err)
	}
	says(b.t, "the refusal", err.Error(), "gateways.gateway.networking.k8s.io", "v0.6.2", "serves v1beta1", "needs v1")
	if difference := cmp.Diff(before, b.census()); difference != "" {
		b.t.Errorf("it touched something:\n%s", difference)
	}
	crds := b.dynamic().
		Resource(schema.GroupVersionResource{
			Group: "apiextensions.k8s.io", Version: "v1",
			Resource: "customresourcedefinitions",
		})
	if err := crds.Delete(b.t.Context(), "gateways.gateway.networking.k8s.io", metav1.DeleteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.rest()
}

// otherGatewayAPI installs the Gateway API as another manager would: other fields than the lab sets, and not all CRDs.
func (b *bench) otherGatewayAPI() {
	b.t.Helper()
	list, err := b.Upstream().GatewayAPI(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, object := range list {
		if name := object.GetName(); name != "gateways."+gatewayAPIGroup && name != "gatewayclasses."+gatewayAPIGroup {
			continue
		}
		annotations := object.GetAnnotations()
		annotations[bundleVersion] = "v1.0.0-theirs"
		object.SetAnnotations(annotations)
		b.createOne(object)
	}
}

// imagePull wants the exit code of sm:install to be that of what holds it up, when its time is up.
func (b *bench) imagePull() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	said := make(chan struct{})
	go func() {
		defer close(said)
		b.saysItCannotPull(ctx)
	}()
	// No scheduler takes the pod, so that only the test sets its status.
	err := b.fails("install of an image that no registry has",
		b.guest("SM_TIMEOUT=2m", "SM_NAMESPACE=shop", "SM_METALLB=on", "SM_ADDONS=prometheus",
			"SM_MANIFESTS="+write(b.t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: stuck}
spec:
  selector: {matchLabels: {app: stuck}}
  template:
    metadata: {labels: {app: stuck}}
    spec:
      schedulerName: nobody
      containers: [{name: c, image: nowhere.example.com/stuck:1}]
`)).Install)
	cancel()
	<-said
	if problem.ExitCode(err) != problem.ImagePull.Exit() {
		b.t.Errorf("exits with %d: %v", problem.ExitCode(err), err)
	}
	says(b.t, "the failure", err.Error(), "nowhere.example.com/stuck:1", "SM_TIMEOUT")
}

// saysItCannotPull reports as a kubelet would.
func (b *bench) saysItCannotPull(ctx context.Context) {
	pods := b.kube().CoreV1().Pods("shop")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: "app=stuck"})
		if err == nil {
			for i := range list.Items {
				pod := &list.Items[i]
				pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
					Name: "c", Image: "nowhere.example.com/stuck:1",
					State: corev1.ContainerState{
						Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such host"},
					},
				}}
				_, _ = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}) // a conflict is tried again
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// deselect wants what a later installation no longer asks for to go, and the targets after it to know.
func (b *bench) deselect() {
	b.t.Helper()
	b.talk.reset()
	b.do("install less", b.guest("SM_METALLB=off", "SM_NAMESPACE=shop", "SM_ADDONS=none").Install)
	says(b.t, "install", b.talk.String(), "prometheus, a telemetry add-on"+removed, "MetalLB"+removed,
		"Manifests of an earlier SM_MANIFESTS"+removed)
	owned, err := b.connect().Owned(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	for _, part := range []string{"prometheus", metalLBPart, poolPart, "manifests"} {
		if len(owned[part]) > 0 {
			b.t.Errorf("of %s there is still %v", part, owned[part])
		}
	}
	if running, _, err := b.plane().Started(b.t.Context(), cluster.ProcessMetalLB); running || err != nil {
		b.t.Errorf("MetalLB's controller runs: %v %v", running, err)
	}
	// Neither the namespace nor the lack of addresses is said again.
	b.do("apps", func(ctx context.Context) error { return b.guest().Apps(ctx, false) })
	service, err := b.kube().CoreV1().Services("shop").Get(b.t.Context(), names.GatewayAccount, metav1.GetOptions{})
	if err != nil || service.Spec.Type != corev1.ServiceTypeClusterIP {
		b.t.Errorf("the gateway's Service: %v %v", service.Spec.Type, err)
	}
	status := b.do("status", b.guest().Status)
	says(b.t, "status", status, "lesson apps")
	for _, word := range []string{"not ready", "unknown", "metallb", "prometheus", "manifests"} {
		if strings.Contains(status, word) {
			b.t.Errorf("status says %q:\n%s", word, status)
		}
	}
}
