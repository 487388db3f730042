package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"k8s.io/client-go/rest"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"

	"ambientlab/internal/docker"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Containers is what the kind provider asks of the Docker engine about containers.
type Containers interface {
	lb.Docker
	ContainerRemove(
		ctx context.Context, container string, options client.ContainerRemoveOptions,
	) (client.ContainerRemoveResult, error)
	ContainerStart(
		ctx context.Context, container string, options client.ContainerStartOptions,
	) (client.ContainerStartResult, error)
	ContainerLogs(
		ctx context.Context, container string, options client.ContainerLogsOptions,
	) (client.ContainerLogsResult, error)
	ContainerStatPath(
		ctx context.Context, container string, options client.ContainerStatPathOptions,
	) (client.ContainerStatPathResult, error)
	CopyFromContainer(
		ctx context.Context, container string, options client.CopyFromContainerOptions,
	) (client.CopyFromContainerResult, error)
	CopyToContainer(
		ctx context.Context, container string, options client.CopyToContainerOptions,
	) (client.CopyToContainerResult, error)
}

// Images is what it asks about images.
type Images interface {
	ImageInspect(
		ctx context.Context, image string, options ...client.ImageInspectOption,
	) (client.ImageInspectResult, error)
	ImagePull(ctx context.Context, ref string, options client.ImagePullOptions) (client.ImagePullResponse, error)
}

// Docker is the engine as the kind provider uses it; *client.Client is one.
type Docker interface {
	Containers
	Images
	docker.Execer
}

// library is the part of kind's library in use.
type library interface {
	Create(name string, options ...kindcluster.CreateOption) error
	KubeConfig(name string, internal bool) (string, error)
	CollectLogs(name, dir string) error
}

// KindOptions describe the cluster wanted.
type KindOptions struct {
	// Name is the lab's and the cluster's name.
	Name string
	// Config is kind's configuration (kind.x-k8s.io/v1alpha4); the lab's mark is added to each node. Empty means one
	// control plane.
	Config []byte
	// NodeImage replaces the nodes' images; empty leaves the configuration's.
	NodeImage string
	// Kubeconfig is one file or several, as KUBECONFIG is written; empty means ~/.kube/config.
	Kubeconfig string
	// Docker is the engine and Endpoint its address, for messages.
	Docker   Docker
	Endpoint docker.Endpoint
	// Network is the Docker network kind puts nodes on; empty means kind's own choice, KIND_EXPERIMENTAL_DOCKER_NETWORK
	// or "kind".
	Network string
	// LockDir holds the lock that keeps two runs from creating the same cluster at once; empty means the lab's folder
	// in the user's cache.
	LockDir string
}

// Kind is a kind cluster of the lab's own.
type Kind struct {
	opts KindOptions

	// kubeconfigs holds kind's kubeconfig of a control plane, by the ID of its container.
	kubeconfigs sync.Map

	// awaited says that the nodes of the cluster could run pods when they were awaited.
	awaiting sync.Mutex
	awaited  bool

	// The seams; NewKind sets the real ones.
	library  func(log *progressLog) library
	lookPath func(string) (string, error)
	after    func(time.Duration) <-chan time.Time
	connect  func(ctx context.Context, address string) error
	greet    func(ctx context.Context, address string, authority []byte) error
	admits   func(ctx context.Context, cfg *rest.Config) error
	ready    func(ctx context.Context, cfg *rest.Config, want int) error
	look     func(ctx context.Context, cfg *rest.Config) (version, notReady string, err error)
}

// KindNetwork is the name of the Docker network on which kind puts its nodes.
func KindNetwork() string { return cmp.Or(os.Getenv("KIND_EXPERIMENTAL_DOCKER_NETWORK"), "kind") }

// NewKind describes a kind cluster; it touches nothing.
func NewKind(opts KindOptions) *Kind {
	opts.Network = cmp.Or(opts.Network, KindNetwork())
	if opts.LockDir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir() // no home directory: a lock there is as good
		}
		opts.LockDir = filepath.Join(cache, "ambientlab", "locks")
	}
	return &Kind{
		opts: opts,
		library: func(log *progressLog) library {
			return kindcluster.NewProvider(kindcluster.ProviderWithDocker(), kindcluster.ProviderWithLogger(log))
		},
		lookPath: exec.LookPath,
		after:    time.After,
		connect:  connect,
		greet:    greet,
		admits:   admits,
		ready:    WaitNodes,
		look:     LookAtNodes,
	}
}

// contextName is what kind calls a cluster's kubeconfig entries.
func (k *Kind) contextName() string { return "kind-" + k.opts.Name }

// completeFile marks a cluster whose creation has finished. It is a file in the first control plane's container, which
// Docker answers for even when the container is stopped.
const (
	completeDir  = "/etc/ambientlab"
	completeFile = "complete"
)

// inspectTimeout bounds the look at a cluster's API server: one that does not answer by then is reported as such.
const inspectTimeout = 10 * time.Second

// Inspect looks at the containers first, so that it can tell a half-created or stopped cluster without an API server,
// and then at the nodes.
func (k *Kind) Inspect(ctx context.Context) (Info, error) {
	info, err := k.Find(ctx)
	if err != nil || info.State != NotReady {
		return info, err
	}
	cfg, err := k.RESTConfig(ctx)
	if err != nil {
		return info, err
	}
	info.Server = cfg.Host
	bounded, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	version, notReady, err := k.look(bounded, cfg)
	if ctx.Err() != nil {
		return info, fmt.Errorf("inspecting cluster %s: %w", k.opts.Name, context.Cause(ctx))
	}
	info.Version = version
	switch {
	case err != nil && k.answersInside(ctx, info.Nodes):
		info.State, info.Message = NotReady, k.notFromHere(cfg.Host).Error()
	case err != nil:
		info.State, info.Message = NotReady, fmt.Sprintf("its API server at %s does not answer: %v", cfg.Host, err)
	case notReady != "":
		info.State, info.Message = NotReady, notReady
	case !linked(kubeconfigPaths(k.opts.Kubeconfig), info.Context, cfg.Host):
		info.State, info.Message = Unlinked, fmt.Sprintf("the kubeconfig has no context %s for it", info.Context)
	default:
		info.State, info.Message = Ready, k.drift(info.Nodes)
	}
	return info, nil
}

// Absent describes the cluster while it does not exist.
func (k *Kind) Absent() Info {
	return Info{Provider: ProviderKind, Name: k.opts.Name, Context: k.contextName(), State: Absent, Packets: true}
}

// Find looks at the containers alone. A cluster whose containers are all there and running is NotReady, because its API
// server is not asked.
func (k *Kind) Find(ctx context.Context) (Info, error) {
	info := k.Absent()
	nodes, err := k.nodes(ctx)
	if err != nil {
		return info, err
	}
	if len(nodes) == 0 {
		info.Message = "there is no kind cluster " + k.opts.Name
		return info, nil
	}
	info.Exists, info.Nodes = true, nodes
	if info.Owned = k.owned(nodes); !info.Owned {
		info.State = Foreign
		info.Message = "a kind cluster of this name exists, and the lab did not create it"
		return info, nil
	}
	complete, err := k.complete(ctx, nodes)
	if err != nil {
		return info, err
	}
	if !complete {
		info.State = Partial
		info.Message = "an earlier run did not finish creating it"
		return info, nil
	}
	info.State = NotReady
	for _, n := range nodes {
		if !n.Running {
			info.State = Stopped
			info.Message = fmt.Sprintf("node container %s is stopped", n.Name)
			break
		}
	}
	return info, nil
}

// Vet refuses a cluster whose node image brought a version that Istio does not support.
func (k *Kind) Vet(_ context.Context, info Info) error {
	var wrong *problem.Problem
	if err := CheckVersion("kind cluster "+k.opts.Name, info.Version); errors.As(err, &wrong) {
		return wrong.With("Delete the cluster with `mage sm:delete`, " +
			"then choose another node image with SM_NODE_IMAGE.")
	}
	return nil
}

// nodes lists the cluster's containers, load balancers included.
func (k *Kind) nodes(ctx context.Context) ([]Node, error) {
	nodes, err := node.List(ctx, k.opts.Docker, k.opts.Name)
	return nodes, docker.Explain(ctx, err, k.opts.Endpoint)
}

// owned tells whether every Kubernetes node has this lab's mark. A load balancer cannot have it: kind mounts nothing
// into it.
func (k *Kind) owned(nodes []Node) bool {
	marked := 0
	for _, n := range nodes {
		switch {
		case k.marked(n):
			marked++
		case n.Role != node.LoadBalancer:
			return false
		}
	}
	return marked > 0
}

func (k *Kind) marked(n Node) bool { return n.Mark != nil && n.Mark.Lab == k.opts.Name }

func (k *Kind) complete(ctx context.Context, nodes []Node) (bool, error) {
	first, ok := firstControlPlane(nodes)
	if !ok {
		return false, nil
	}
	_, err := k.opts.Docker.ContainerStatPath(
		ctx, first.ContainerID, client.ContainerStatPathOptions{Path: completeDir + "/" + completeFile},
	)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, docker.Explain(
			ctx, fmt.Errorf("looking for the lab's mark in %s: %w", first.Name, err), k.opts.Endpoint,
		)
	}
	return true, nil
}

func firstControlPlane(nodes []Node) (Node, bool) {
	i := slices.IndexFunc(nodes, func(n Node) bool { return n.Role == node.ControlPlane })
	if i < 0 {
		return Node{}, false
	}
	return nodes[i], true
}

// drift says how the cluster differs from the configuration, which only a new cluster would have; a cluster in use is
// not deleted for it.
func (k *Kind) drift(nodes []Node) string {
	want, err := roles(k.opts.Config)
	if err != nil {
		return ""
	}
	have := make(map[string]int)
	for _, n := range nodes {
		have[n.Role]++
	}
	if have[node.ControlPlane] == want[node.ControlPlane] && have[node.Worker] == want[node.Worker] {
		return ""
	}
	return fmt.Sprintf(
		"it has %d control plane(s) and %d worker(s), while the settings ask for %d and %d: "+
			"delete and install again to change that",
		have[node.ControlPlane],
		have[node.Worker],
		want[node.ControlPlane],
		want[node.Worker],
	)
}
