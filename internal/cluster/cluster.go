// Package cluster is where a lab's Kubernetes cluster comes from: a kind cluster of its own, or the one of the current
// kubeconfig context. Package embedded has a third provider. What is true of a cluster is asked of Docker and of the
// API server each time; nothing is kept on disk.
package cluster

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"ambientlab/internal/lb"
	"ambientlab/internal/node"
)

// The names of the providers.
const (
	ProviderKind     = "kind"
	ProviderExisting = "existing"
	ProviderEmbedded = "embedded"
)

// Node is one node of a cluster.
type Node = node.Node

// State is what Inspect found.
type State string

// The states of a cluster.
const (
	// Absent: there is no such cluster.
	Absent State = "absent"
	// Foreign: a cluster of this name exists without the lab's mark.
	Foreign State = "foreign"
	// Partial: the lab began to create the cluster and did not finish.
	Partial State = "half-created"
	// Stopped: the cluster is complete and some of its containers do not run.
	Stopped State = "stopped"
	// NotReady: it runs, and its API server or a node is not ready.
	NotReady State = "not ready"
	// Unreachable: an existing cluster whose API server does not answer, so that it is unknown whether the cluster
	// exists.
	Unreachable State = "unreachable"
	// Unlinked: it is ready, and the user's kubeconfig has no entry for it.
	Unlinked State = "not in the kubeconfig"
	// Outdated: it is ready, and its programs were built from other sources than those at hand.
	Outdated State = "an older build"
	// Ready: the API server answers, and all nodes of a cluster of the lab's own are Ready. The nodes of an existing
	// cluster need not be.
	Ready State = "ready"
)

// Info is a cluster as it is now.
type Info struct {
	// Provider, Name, Context and Server name it; Server is empty while it is unknown.
	Provider, Name, Context, Server string
	// Version is the API server's, such as v1.36.4; empty while it is unknown.
	Version string
	State   State
	// Message says why the state is not Ready, or what differs from the settings.
	Message string
	// Exists tells whether the cluster exists, created by the lab or not.
	Exists bool
	// Owned tells whether the lab made the cluster, and so may delete it.
	Owned bool
	Nodes []Node
	// Elsewhere counts the nodes that are no containers of this host's Docker engine, and names one; empty means that
	// all are, or that the provider has no containers.
	Elsewhere string
	// Packets tells whether pods exchange real traffic in it, as it is now.
	Packets bool
}

// Traits is what differs between providers and holds for every cluster of one.
type Traits struct {
	// Name is kind, existing or embedded.
	Name string
	// Title names the cluster, such as "kind cluster ambient".
	Title string
	// Owned says that the lab creates the cluster. It may then delete the cluster, and overwrite fields that another
	// field manager set.
	Owned bool
	// LoadBalancer says that the lab gives out load-balancer addresses unless SM_METALLB says otherwise.
	LoadBalancer bool
	// UsesDocker says that nodes may be containers of a Docker engine, which sm:doctor then checks.
	UsesDocker bool
	// TunesNodes says that nodes may be containers whose kernel settings can be changed.
	TunesNodes bool
	// BuildsPrograms says that a step may first have to build programs, which takes minutes the first time.
	BuildsPrograms bool
	// NoImages is why images cannot be loaded into the nodes, or empty.
	NoImages string
	// GatewayNodePort is the node port that the cluster publishes on this host for the gateway; 0 if it publishes none.
	GatewayNodePort int
	// AddonsOnRequest says that telemetry add-ons are installed only where SM_ADDONS asks for them.
	AddonsOnRequest bool
	// NoAddons lists the telemetry add-ons whose pods cannot run.
	NoAddons []string
	// CreateCommands are the commands that create such a cluster by hand.
	CreateCommands []string
}

// Provider creates, finds and removes a lab's cluster, and answers for what differs between providers. Errors that a
// user can do something about are problems.
type Provider interface {
	Traits() Traits
	// Inspect looks at the cluster and changes nothing. That the cluster does not exist is no error.
	Inspect(ctx context.Context) (Info, error)
	// Create makes sure that the cluster exists and is ready. Where it already is, it changes nothing. When ctx ends in
	// the middle it removes what it created.
	Create(ctx context.Context) error
	// Delete removes a cluster that the lab created, and refuses any other.
	Delete(ctx context.Context) error
	// RESTConfig connects to the cluster.
	RESTConfig(ctx context.Context) (*rest.Config, error)
	// Nodes lists the nodes. One that is a container of this host's Docker engine has a ContainerID.
	Nodes(ctx context.Context) ([]Node, error)
	// AddressPool gives the load-balancer addresses, or problem.SettingInvalid where there is no network to take them
	// from.
	AddressPool(ctx context.Context) (lb.Pool, error)
}

// Adapter is a provider that cannot take every object as it is.
type Adapter interface {
	// Adapt replaces the objects that the cluster cannot take. It may change the slice, and not the objects in it.
	Adapt(objects []*unstructured.Unstructured) []*unstructured.Unstructured
	// Simulated tells whether the cluster only reports the pods of an adapted object as running.
	Simulated(object *unstructured.Unstructured) bool
}

// The components that a ProcessRunner runs.
const (
	ProcessIstiod  = "istiod"
	ProcessMetalLB = "metallb-controller"
)

// ProcessRunner is a provider that runs components as processes of this machine, where other clusters run pods.
type ProcessRunner interface {
	// Started tells whether a component's process runs with the settings that are in the cluster, and if not, why.
	Started(ctx context.Context, component string) (running bool, message string, err error)
	Start(ctx context.Context, component string) error
	Stop(ctx context.Context, component string) error
	// Stopped describes the processes that ran and ended, each with the last lines of its log.
	Stopped() []string
}

// Substituter is a provider whose pods run other programs than their images' references say.
type Substituter interface {
	// Substitutes says, by the reference of an image, what runs in its place.
	Substitutes() (map[string]string, error)
}

// LogSource is a provider whose nodes or processes have logs of their own.
type LogSource interface {
	// CollectLogs writes the logs into a folder.
	CollectLogs(ctx context.Context, dir string) error
}

// Monitored is a provider that runs istiod as a process, whose metrics are at an address of this machine.
type Monitored interface {
	MetricsAddress() (string, error)
}

// PodRunner is a provider that runs pods itself, where the machine allows it.
type PodRunner interface {
	// WhyNoPackets says why pods are only reported as running, and what would help; empty where they run.
	WhyNoPackets() string
	// TryPods tries whether pods can run on this machine, and says what was seen. The error is a problem that says
	// which step failed and what helps.
	TryPods(ctx context.Context) (seen string, err error)
}

// ConfigSource is a provider that gives the address at which istiod says what it would send to a proxy. It is asked
// where no proxy runs.
type ConfigSource interface {
	XDSAddress() (string, error)
}

// HostAddress is the annotation of a LoadBalancer Service by which a provider says at which addresses of this machine,
// separated by commas, the Service's ports are served.
const HostAddress = "lab.opssec.in/host-address"

// NodeImageUser is a provider whose nodes are made of images.
type NodeImageUser interface {
	// NodeImages lists the references of the nodes' images, each once.
	NodeImages() ([]string, error)
}

// NodeWaiter is a provider whose clusters take objects before all of their nodes have joined.
type NodeWaiter interface {
	// AwaitNodes waits until a cluster that is being created has all of its nodes, and pods can be started on them.
	AwaitNodes(ctx context.Context) error
}

// Finder is a provider that can tell without asking the cluster whether it exists, and whose it is.
type Finder interface {
	Find(ctx context.Context) (Info, error)
}

// Find tells whether the provider's cluster exists. It asks the cluster itself only if the provider knows no other way.
func Find(ctx context.Context, p Provider) (Info, error) {
	if f, ok := p.(Finder); ok {
		return f.Find(ctx)
	}
	return p.Inspect(ctx)
}

// PlatformSource is a provider whose clusters may need chart values of their own.
type PlatformSource interface {
	Platform(ctx context.Context) (Platform, error)
}

// PoolPlanner is a provider that knows which addresses a new cluster would get, or says with problem.ClusterNone why
// not.
type PoolPlanner interface {
	PlannedPool(ctx context.Context) (lb.Pool, error)
}

// Balanced is a provider whose clusters may have a load balancer that is not the lab's.
type Balanced interface {
	// LoadBalancer names the load balancer, or is empty where none is known.
	LoadBalancer(ctx context.Context) (string, error)
}
