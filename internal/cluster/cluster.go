// Package cluster is where a lab's Kubernetes cluster comes from: a kind cluster of
// its own, or the one of the current kubeconfig context. What is true of a cluster
// is asked of Docker and of the API server each time; nothing is kept on disk.
package cluster

import (
	"context"

	"k8s.io/client-go/rest"

	"ambientlab/internal/node"
)

// The names of the providers in this package.
const (
	ProviderKind     = "kind"
	ProviderExisting = "existing"
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
	// Unreachable: an existing cluster whose API server does not answer, so that nobody
	// can tell whether there is one.
	Unreachable State = "unreachable"
	// Unlinked: it is ready, and the user's kubeconfig has no entry for it.
	Unlinked State = "not in the kubeconfig"
	// Outdated: it is ready, and its programs were built from other sources than those at hand.
	Outdated State = "an older build"
	// Ready: the API server answers, and all nodes of a cluster of the lab's own are
	// Ready. The nodes of an existing cluster are their owner's affair.
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
	// Exists tells whether there is such a cluster, whoever made it.
	Exists bool
	// Owned tells whether the lab made the cluster, and so may delete it.
	Owned bool
	Nodes []Node
	// Packets tells whether pods exchange real traffic in it.
	Packets bool
}

// Provider makes, finds and removes a lab's cluster. Errors that a user can do
// something about are problems.
type Provider interface {
	// Name is kind, existing or embedded.
	Name() string
	// Inspect looks at the cluster and changes nothing. That there is none is no error.
	Inspect(ctx context.Context) (Info, error)
	// Create makes sure that the cluster exists and is ready, and is content where it
	// is. When ctx ends in the middle it removes what it made.
	Create(ctx context.Context) error
	// Delete removes a cluster the lab made, and refuses any other.
	Delete(ctx context.Context) error
	// RESTConfig connects to the cluster.
	RESTConfig(ctx context.Context) (*rest.Config, error)
	// CollectLogs writes what helps to find a fault into dir.
	CollectLogs(ctx context.Context, dir string) error
}
