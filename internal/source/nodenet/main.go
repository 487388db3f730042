// Command nodenet is the default CNI of the source-built node image. On every node it writes the CNI configuration for
// the node's own pod CIDRs, routes the pod CIDRs of all other nodes to those nodes' addresses, and masquerades traffic
// from pods to addresses outside the pod network. The nodes must share one link, as kind's nodes do.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	// configPath is the first file by name in its folder, which containerd reads and to which istio-cni adds itself.
	configPath = "/etc/cni/net.d/10-lab.conflist"
	// resync is how long a route or the file can stay changed by another program.
	resync = time.Minute
)

// settings come from the DaemonSet's environment.
type settings struct {
	node     string   // NODE_NAME: the node this daemon runs on
	subnets  []string // POD_SUBNET: the cluster's pod subnets, separated by commas
	endpoint string   // CONTROL_PLANE_ENDPOINT: host:port of the API server; kind adds it, see the manifest
}

func readSettings(getenv func(string) string) (settings, error) {
	s := settings{node: getenv("NODE_NAME"), endpoint: getenv("CONTROL_PLANE_ENDPOINT")}
	for _, subnet := range strings.Split(getenv("POD_SUBNET"), ",") {
		if subnet = strings.TrimSpace(subnet); subnet != "" {
			s.subnets = append(s.subnets, subnet)
		}
	}
	if s.node == "" || len(s.subnets) == 0 {
		return s, fmt.Errorf("NODE_NAME and POD_SUBNET must be set (NODE_NAME=%q, POD_SUBNET=%q)", s.node,
			getenv("POD_SUBNET"))
	}
	return s, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv); err != nil {
		slog.Error("nodenet", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, getenv func(string) string) error {
	s, err := readSettings(getenv)
	if err != nil {
		return err
	}
	client, err := coreClient(s.endpoint)
	if err != nil {
		return err
	}
	// One pending signal is enough for any number of events, because a reconcile reads all nodes.
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	store, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(client, "nodes", corev1.NamespaceAll, fields.Everything()),
		ObjectType:    &corev1.Node{},
		ResyncPeriod:  resync,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { poke() },
			UpdateFunc: func(any, any) { poke() },
			DeleteFunc: func(any) { poke() },
		},
	})
	go informer.RunWithContext(ctx)
	net := &network{self: s.node, subnets: s.subnets, configPath: configPath, log: slog.Default()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			if err := net.reconcile(nodes(store)); err != nil {
				// The next event or resync tries again. Running pods keep their network.
				slog.Error("reconciling", "error", err)
			}
		}
	}
}

// nodes are the nodes that the informer knows.
func nodes(store cache.Store) []*corev1.Node {
	var out []*corev1.Node
	for _, o := range store.List() {
		if n, ok := o.(*corev1.Node); ok {
			out = append(out, n)
		}
	}
	return out
}

// coreClient is a client of the core API group only, because the full clientset would double the size of the binary. It
// uses the endpoint and not the API server's Service, which does not work before kube-proxy runs.
func coreClient(endpoint string) (rest.Interface, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the service account: %w", err)
	}
	if endpoint != "" {
		config.Host = "https://" + endpoint
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering core/v1: %w", err)
	}
	config.APIPath = "/api"
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.UserAgent = "ambientlab-nodenet"
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", config.Host, err)
	}
	return client, nil
}
