package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// startDeadline is how long a short-lived caller may take to be ready, an image to be pulled included.
const startDeadline = 3 * time.Minute

// Kubernetes is the World of a cluster.
type Kubernetes struct {
	namespace string
	cluster   traffic.Cluster
	objects   func(context.Context) (*mesh.Objects, error)
	waypoint  *observe.Waypoint

	mutex   sync.Mutex
	started map[string]func() error // short-lived callers, by pod name; each is started by the first call
}

// NewKubernetes returns the World of the cluster behind config. Its applications are in the namespace of target, whose
// objects m reads.
func NewKubernetes(
	config *rest.Config, forwarder *mesh.Forwarder, m *mesh.Mesh, target mesh.Target,
) (*Kubernetes, error) {
	cluster, err := traffic.NewKube(config, forwarder)
	if err != nil {
		return nil, err
	}
	objects := func(ctx context.Context) (*mesh.Objects, error) { return m.Objects(ctx, target) }
	namespace := target.Service.Namespace
	admin := func(pod string) observe.Admin { return forwarder.Admin(namespace, pod) }
	return newWorld(cluster, objects, admin, namespace), nil
}

func newWorld(
	cluster traffic.Cluster, objects func(context.Context) (*mesh.Objects, error),
	admin func(pod string) observe.Admin, namespace string,
) *Kubernetes {
	return &Kubernetes{
		namespace: namespace, cluster: cluster, objects: objects, started: map[string]func() error{},
		waypoint: &observe.Waypoint{
			Cluster: cluster, Namespace: namespace,
			Selector: mesh.GatewayLabel + "=" + names.Waypoint, OpenAdmin: admin,
		},
	}
}

// Caller implements World.
func (k *Kubernetes) Caller(ctx context.Context, caller Caller) (traffic.Sender, error) {
	service := fmt.Sprintf("http://%s:%d", names.AppB, names.AppPort)
	appa := traffic.InPod{
		Cluster: k.cluster, Namespace: k.namespace, Selector: "app=" + names.AppA, URL: service,
		Workload: "deploy/" + names.AppA,
	}
	switch caller {
	case Appa:
		return appa, nil
	case AppaDirect:
		address, err := k.appbAddress(ctx)
		appa.URL = address
		return appa, err
	case Gateway:
		return traffic.Gateway{
			Cluster: k.cluster, Namespace: k.namespace, Selector: mesh.GatewayLabel + "=" + names.Gateway,
			Port: names.GatewayPort, Host: names.Host, Service: "svc/" + names.GatewayAccount,
		}, nil
	case Outsider:
		return k.shortLived(ctx, "lab-outsider", service, nil)
	case OutsiderDirect:
		address, err := k.appbAddress(ctx)
		if err != nil {
			return nil, err
		}
		return k.shortLived(ctx, "lab-outsider", address, nil)
	case Unmeshed:
		return k.shortLived(ctx, "lab-unmeshed", service, map[string]string{"istio.io/dataplane-mode": "none"})
	}
	return nil, fmt.Errorf("unknown caller %q; known: %s, %s, %s, %s, %s, %s", caller, Appa, Gateway, Outsider,
		Unmeshed, AppaDirect, OutsiderDirect)
}

// Cluster implements World.
func (k *Kubernetes) Cluster() traffic.Cluster { return k.cluster }

// Objects implements World.
func (k *Kubernetes) Objects(ctx context.Context) (*mesh.Objects, error) { return k.objects(ctx) }

func (k *Kubernetes) appbAddress(ctx context.Context) (string, error) {
	pods, err := k.cluster.Pods(ctx, k.namespace, "app="+names.AppB)
	if err != nil {
		return "", fmt.Errorf("looking for appb's pod: %w", err)
	}
	for _, p := range pods {
		if p.Ready && p.IP != "" {
			return fmt.Sprintf("http://%s:%d", p.IP, names.PodPort), nil
		}
	}
	return "", errors.New("appb has no pod that is ready")
}

// shortLived starts a caller's pod once a run. A pod that could not be started is known too, so that Close
// removes what there is of it.
func (k *Kubernetes) shortLived(
	ctx context.Context, name, url string, labels map[string]string,
) (traffic.Sender, error) {
	account := "default"
	if name == "lab-outsider" {
		account = accountOutsider
	}
	k.mutex.Lock()
	start, known := k.started[name]
	if !known {
		start = sync.OnceValue(func() error {
			ctx, cancel := context.WithTimeoutCause(ctx, startDeadline,
				fmt.Errorf("not ready within %s", startDeadline))
			defer cancel()
			_, err := k.cluster.StartPod(ctx, traffic.PodSpec{
				Namespace: k.namespace, Name: name, ServiceAccount: account, Image: names.FortioImage, Labels: labels,
			})
			return err
		})
		k.started[name] = start
	}
	k.mutex.Unlock()
	if err := start(); err != nil {
		return nil, err
	}
	return traffic.InPod{
		Cluster: k.cluster, Namespace: k.namespace, Selector: traffic.CallerLabel + "=" + name, URL: url,
		Workload: "pod/" + name,
	}, nil
}

// Close implements World.
func (k *Kubernetes) Close(ctx context.Context) error {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	errs := []error{k.waypoint.Close()}
	for name := range k.started {
		if err := k.cluster.RemovePod(ctx, k.namespace, name); err != nil {
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

// Incarnations implements World. The ztunnels count, too: one that is replaced breaks the connections on its node.
func (k *Kubernetes) Incarnations(ctx context.Context) ([]string, error) {
	var found []string
	for _, of := range []struct{ namespace, selector string }{
		{k.namespace, "app=" + names.AppA},
		{k.namespace, "app=" + names.AppB},
		{k.namespace, mesh.GatewayLabel + "=" + names.Gateway},
		{k.namespace, mesh.GatewayLabel + "=" + names.Waypoint},
		{names.Istio, "app=ztunnel"},
	} {
		pods, err := k.cluster.Pods(ctx, of.namespace, of.selector)
		if err != nil {
			return nil, fmt.Errorf("listing pods %s: %w", of.selector, err)
		}
		for _, p := range pods {
			found = append(found, p.Incarnation())
		}
	}
	return found, nil
}
