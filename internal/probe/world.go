package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// LabNames says what the lab's objects are called.
type LabNames struct {
	Namespace   string // of the applications
	Appa, Appb  string // label app of their pods; Appb also names the Service
	AppbPort    int    // of the Service
	PodPort     int    // of appb's container
	Gateway     string // the ingress Gateway
	GatewayPort int    // its listener's, inside the pod
	Host        string // the route's host name
	Waypoint    string // the waypoint's Gateway
	Fortio      string // image of the short-lived callers
	Istio       string // namespace of ztunnel
}

// DefaultNames are the lab's names in a namespace.
func DefaultNames(namespace string) LabNames {
	return LabNames{
		Namespace: namespace, Appa: "appa", Appb: "appb", AppbPort: 8000, PodPort: 8080, Gateway: "gateway", GatewayPort: 80,
		Host: "appb.opssec.in", Waypoint: "appb-waypoint", Fortio: "docker.io/fortio/fortio:1.75.3",
		Istio: "istio-system",
	}
}

// gatewayLabel is on the pods of every Gateway, waypoints included.
const gatewayLabel = "gateway.networking.k8s.io/gateway-name"

// startDeadline is how long a short-lived caller may take to be ready, an image to be pulled included.
const startDeadline = 3 * time.Minute

// Kubernetes is the World of a cluster.
type Kubernetes struct {
	names    LabNames
	cluster  traffic.Cluster
	objects  dynamic.Interface
	waypoint observe.Waypoint

	mutex   sync.Mutex
	started map[string]bool // short-lived callers, by pod name
}

// NewKubernetes returns the World of the cluster behind config.
func NewKubernetes(config *rest.Config, forwarder traffic.Forwarder, names LabNames) (*Kubernetes, error) {
	cluster, err := traffic.NewKube(config, forwarder)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	return newWorld(cluster, objects, names), nil
}

func newWorld(cluster traffic.Cluster, objects dynamic.Interface, names LabNames) *Kubernetes {
	return &Kubernetes{
		names: names, cluster: cluster, objects: objects, started: map[string]bool{},
		waypoint: observe.Waypoint{Cluster: cluster, Namespace: names.Namespace, Selector: gatewayLabel + "=" + names.Waypoint},
	}
}

// Caller implements World.
func (k *Kubernetes) Caller(ctx context.Context, who Caller) (traffic.Sender, error) {
	n := k.names
	service := fmt.Sprintf("http://%s:%d", n.Appb, n.AppbPort)
	appa := traffic.InPod{Cluster: k.cluster, Namespace: n.Namespace, Selector: "app=" + n.Appa, URL: service, Workload: "deploy/" + n.Appa}
	switch who {
	case Appa:
		return appa, nil
	case AppaDirect:
		address, err := k.appbAddress(ctx)
		appa.URL = address
		return appa, err
	case Gateway:
		return traffic.Gateway{
			Cluster: k.cluster, Namespace: n.Namespace, Selector: gatewayLabel + "=" + n.Gateway,
			Port: n.GatewayPort, Host: n.Host, Service: "svc/" + n.Gateway + "-istio",
		}, nil
	case Outsider:
		return k.shortLived(ctx, "lab-outsider", service, nil)
	case Unmeshed:
		return k.shortLived(ctx, "lab-unmeshed", service, map[string]string{"istio.io/dataplane-mode": "none"})
	}
	return nil, fmt.Errorf("nobody is called %q", who)
}

func (k *Kubernetes) appbAddress(ctx context.Context) (string, error) {
	pods, err := k.cluster.Pods(ctx, k.names.Namespace, "app="+k.names.Appb)
	if err != nil {
		return "", fmt.Errorf("looking for appb's pod: %w", err)
	}
	for _, p := range pods {
		if p.Ready && p.IP != "" {
			return fmt.Sprintf("http://%s:%d", p.IP, k.names.PodPort), nil
		}
	}
	return "", errors.New("appb has no pod that is ready")
}

// shortLived starts a caller's pod once a run. A pod that could not be started is marked as started all the same, so
// that Close removes what there is of it.
func (k *Kubernetes) shortLived(ctx context.Context, name, url string, labels map[string]string) (traffic.Sender, error) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	caller := traffic.InPod{
		Cluster: k.cluster, Namespace: k.names.Namespace, Selector: traffic.CallerLabel + "=" + name, URL: url, Workload: "pod/" + name,
	}
	if k.started[name] {
		return caller, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startDeadline, fmt.Errorf("not ready within %s", startDeadline))
	defer cancel()
	k.started[name] = true
	account := "default"
	if name == "lab-outsider" {
		account = accountOutsider
	}
	_, err := k.cluster.StartPod(ctx, traffic.PodSpec{
		Namespace: k.names.Namespace, Name: name, ServiceAccount: account, Image: k.names.Fortio, Labels: labels,
	})
	if err != nil {
		return nil, err
	}
	return caller, nil
}

// Close implements World.
func (k *Kubernetes) Close(ctx context.Context) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	var errs []error
	for name := range k.started {
		if err := k.cluster.RemovePod(ctx, k.names.Namespace, name); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(k.started, name)
	}
	return errors.Join(errs...)
}

// Counters implements World.
func (k *Kubernetes) Counters(ctx context.Context) (observe.Counters, error) {
	return k.waypoint.Counters(ctx)
}

// Crossings implements World.
func (k *Kubernetes) Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error {
	return k.waypoint.Crossings(ctx, since, enough)
}

// Lives implements World. The ztunnels count, too: one that is replaced breaks the connections on its node.
func (k *Kubernetes) Lives(ctx context.Context) ([]string, error) {
	n := k.names
	var lives []string
	for _, of := range []struct{ namespace, selector string }{
		{n.Namespace, "app=" + n.Appa},
		{n.Namespace, "app=" + n.Appb},
		{n.Namespace, gatewayLabel + "=" + n.Gateway},
		{n.Namespace, gatewayLabel + "=" + n.Waypoint},
		{n.Istio, "app=ztunnel"},
	} {
		pods, err := k.cluster.Pods(ctx, of.namespace, of.selector)
		if err != nil {
			return nil, fmt.Errorf("listing pods %s: %w", of.selector, err)
		}
		for _, p := range pods {
			lives = append(lives, p.Incarnation())
		}
	}
	return lives, nil
}
