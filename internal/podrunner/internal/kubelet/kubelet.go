// Package kubelet is the kubelet of a lab's nodes: it runs the pods that are bound to them, or says that they run, and
// keeps the nodes and the pods' status up to date.
package kubelet

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/network"
	"ambientlab/podrunner/internal/sandbox"
)

// Process is a running program of a container.
type Process interface {
	PID() int
	Ended() <-chan struct{}
	Exit() (code, signal int)
	Signal(os.Signal) error
}

// Sandbox is a pod's network and files.
type Sandbox interface {
	Dir() string
	Network() *os.File
	Redirect() error
	SetServices([]network.Service) error
	Dial(ctx context.Context, port int) (net.Conn, error)
	MakeRoot(container string, root sandbox.Root) error
	WriteFile(container, path, content string) error
	Start(sandbox.Command) (Process, error)
	Close() error
}

// Runtime makes sandboxes and reaches pods.
type Runtime interface {
	NewSandbox(uid, hostname, dir string, address netip.Addr) (Sandbox, error)
	DialProbe(ctx context.Context, address string) (net.Conn, error)
}

// NodeProxies serve the pods of the mesh, one proxy on each node.
type NodeProxies interface {
	// Add has the proxy of a node serve a pod, and returns when it does.
	Add(ctx context.Context, node string, pod *corev1.Pod, network *os.File) error
	// Remove ends that.
	Remove(node, uid string)
}

// Kubelet runs pods. Its exported fields are set before Run.
type Kubelet struct {
	Config  *config.Config
	Client  kubernetes.Interface
	Runtime Runtime     // nil where every pod is simulated
	Proxies NodeProxies // the same
	Log     *slog.Logger
	// Changed, where it is set, hears of all Services after a change of Services or their endpoints.
	Changed func(ctx context.Context, services []*corev1.Service)

	pods       corelisters.PodLister
	nodes      corelisters.NodeLister
	services   corelisters.ServiceLister
	slices     discoverylisters.EndpointSliceLister
	namespaces corelisters.NamespaceLister
	recorder   record.EventRecorder

	mu        sync.Mutex
	workers   map[types.UID]*worker
	addresses map[string]*network.Addresses // by node
	running   sync.WaitGroup
	changed   chan struct{} // Services or endpoints have changed
}

// Run works until ctx ends, and then ends every container.
func (k *Kubelet) Run(ctx context.Context) error {
	k.workers, k.addresses, k.changed = map[types.UID]*worker{}, map[string]*network.Addresses{}, make(chan struct{}, 1)
	factory := informers.NewSharedInformerFactory(k.Client, 0)
	core := factory.Core().V1()
	k.pods, k.nodes, k.services, k.namespaces = core.Pods().Lister(), core.Nodes().Lister(), core.Services().Lister(),
		core.Namespaces().Lister()
	k.slices = factory.Discovery().V1().EndpointSlices().Lister()
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: k.Client.CoreV1().Events("")})
	k.recorder = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "podrunner"})

	nodes := newNodes(k)
	_, err := core.Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { nodes.look() }, UpdateFunc: func(any, any) { nodes.look() },
		DeleteFunc: func(any) { nodes.look() },
	})
	if err != nil {
		return err
	}
	notify := func() {
		select {
		case k.changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() }, UpdateFunc: func(any, any) { notify() }, DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{
		core.Services().Informer(),
		factory.Discovery().V1().EndpointSlices().Informer(), core.Namespaces().Informer(),
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}
	pods := core.Pods().Informer()
	factory.Start(ctx.Done())
	k.running.Go(func() { nodes.run(ctx) })
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("reading %s from the API server: %w", kind, context.Cause(ctx))
		}
	}
	// Addresses of pods that are there are taken before any pod gets one.
	k.claim()
	registration, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.observe(ctx, o) },
		UpdateFunc: func(_, o any) { k.observe(ctx, o) },
		DeleteFunc: func(o any) { k.vanished(o) },
	})
	if err != nil {
		return err
	}
	cache.WaitForCacheSync(ctx.Done(), registration.HasSynced)
	k.running.Go(func() { k.followServices(ctx) })
	<-ctx.Done()
	k.running.Wait()
	return nil
}

// mine tells whether a pod is bound to a node of this kubelet.
func (k *Kubelet) mine(pod *corev1.Pod) bool {
	for _, node := range k.Config.Nodes {
		if node.Name == pod.Spec.NodeName {
			return true
		}
	}
	return false
}

// observe starts the work on a pod, or passes the change on to it.
func (k *Kubelet) observe(ctx context.Context, object any) {
	pod, isPod := object.(*corev1.Pod)
	if !isPod || !k.mine(pod) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if w := k.workers[pod.UID]; w != nil {
		w.update(pod)
		return
	}
	w := newWorker(k, pod)
	k.workers[pod.UID] = w
	k.running.Go(func() {
		w.run(ctx)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.workers, pod.UID)
	})
}

// vanished ends the work on a pod that was removed from the API server.
func (k *Kubelet) vanished(object any) {
	if gone, is := object.(cache.DeletedFinalStateUnknown); is {
		object = gone.Obj
	}
	pod, isPod := object.(*corev1.Pod)
	if !isPod {
		return
	}
	k.mu.Lock()
	w := k.workers[pod.UID]
	k.mu.Unlock()
	if w != nil {
		w.end(errVanished)
	}
}

// worker finds the work on a pod by its name.
func (k *Kubelet) worker(namespace, name string) *worker {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.workers {
		if pod := w.current(); pod.Namespace == namespace && pod.Name == name {
			return w
		}
	}
	return nil
}

// claim takes the addresses that pods have already.
func (k *Kubelet) claim() {
	pods, err := k.pods.List(labels.Everything())
	if err != nil {
		return
	}
	for _, pod := range pods {
		if !k.mine(pod) || pod.Spec.HostNetwork || finished(pod) {
			continue
		}
		if had, err := netip.ParseAddr(pod.Status.PodIP); err == nil {
			if from := k.addressesOf(pod.Spec.NodeName); from != nil {
				_, _ = from.Take(had)
			}
		}
	}
}

func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// addressesOf gives the addresses of a node; nil while the node has no range.
func (k *Kubelet) addressesOf(node string) *network.Addresses {
	k.mu.Lock()
	defer k.mu.Unlock()
	if known := k.addresses[node]; known != nil {
		return known
	}
	object, err := k.nodes.Get(node)
	if err != nil {
		return nil
	}
	prefix, err := netip.ParsePrefix(object.Spec.PodCIDR)
	if err != nil {
		return nil
	}
	k.addresses[node] = network.NewAddresses(prefix, time.Now)
	return k.addresses[node]
}

// hostAddress is the InternalIP of a node.
func (k *Kubelet) hostAddress(node string) string {
	for _, n := range k.Config.Nodes {
		if n.Name == node {
			return n.Address
		}
	}
	return ""
}

// allServices lists the Services.
func (k *Kubelet) allServices() []*corev1.Service {
	services, err := k.services.List(labels.Everything())
	if err != nil {
		return nil
	}
	return services
}

// reachable lists what pods outside of the mesh can reach by a Service's address.
func (k *Kubelet) reachable() []network.Service {
	return network.Services(k.allServices(), k.slicesOf)
}

func (k *Kubelet) slicesOf(namespace, name string) []*discoveryv1.EndpointSlice {
	found, err := k.slices.EndpointSlices(
		namespace,
	).List(
		labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}),
	)
	if err != nil {
		return nil
	}
	return found
}

// Endpoints lists the ready endpoints of a Service's port, as host:port.
func (k *Kubelet) Endpoints(service *corev1.Service, port corev1.ServicePort) []string {
	var found []string
	for _, endpoint := range network.Endpoints(port.Name, k.slicesOf(service.Namespace, service.Name)) {
		found = append(found, endpoint.String())
	}
	return found
}

// followServices brings names and rules in the pods up to date when Services change. Changes come in bursts, so it
// waits a moment for more.
func (k *Kubelet) followServices(ctx context.Context) {
	for {
		select {
		case <-k.changed:
		case <-ctx.Done():
			return
		}
		if !pause(ctx, 10*time.Millisecond) {
			return
		}
		k.mu.Lock()
		workers := make([]*worker, 0, len(k.workers))
		for _, w := range k.workers {
			workers = append(workers, w)
		}
		k.mu.Unlock()
		services, reachable := k.allServices(), k.reachable()
		for _, w := range workers {
			w.setServices(services, reachable)
		}
		if k.Changed != nil {
			k.Changed(ctx, services)
		}
	}
}

// ambient tells whether a pod belongs to the mesh, by the labels that istio-cni reads: the pod's own before its
// namespace's (istio.io/istio, cni/pkg/util).
func (k *Kubelet) ambient(pod *corev1.Pod) bool {
	const label, mesh = "istio.io/dataplane-mode", "ambient"
	if k.Proxies == nil || pod.Spec.HostNetwork {
		return false
	}
	if _, sidecar := pod.Annotations["sidecar.istio.io/status"]; sidecar {
		return false
	}
	if mode, set := pod.Labels[label]; set {
		return mode == mesh
	}
	namespace, err := k.namespaces.Get(pod.Namespace)
	return err == nil && namespace.Labels[label] == mesh
}

// ConfigMap, Secret and Token read from the API server what pods refer to.
func (k *Kubelet) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return k.Client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Secret implements source.
func (k *Kubelet) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return k.Client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

// Token implements tokens.
func (k *Kubelet) Token(
	ctx context.Context,
	pod *corev1.Pod,
	audience string,
	seconds int64,
) (*authenticationv1.TokenRequestStatus, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1",
			Kind:       "Pod",
			Name:       pod.Name,
			UID:        pod.UID,
		},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	issued, err := k.Client.CoreV1().ServiceAccounts(
		pod.Namespace,
	).CreateToken(
		ctx,
		account,
		request,
		metav1.CreateOptions{},
	)
	if err != nil {
		return nil, err
	}
	return &issued.Status, nil
}

// folder is where a pod's files are, and logFolder where its logs are, which stay until the pod is removed.
func (k *Kubelet) folder(pod *corev1.Pod) string {
	return filepath.Join(k.Config.Dir, "pods", string(pod.UID))
}

func (k *Kubelet) logFolder(pod *corev1.Pod) string {
	return filepath.Join(k.Config.Dir, "logs", pod.Namespace+"_"+pod.Name+"_"+string(pod.UID))
}

// NodeFolder holds what pods see as folders of their node.
func (k *Kubelet) NodeFolder(node string) string { return filepath.Join(k.Config.Dir, "nodes", node) }

func (k *Kubelet) logFile(pod *corev1.Pod, container string, restarts int32) string {
	return filepath.Join(k.logFolder(pod), container, fmt.Sprintf("%d.log", restarts))
}
