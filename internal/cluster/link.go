package cluster

import (
	"context"
	"time"

	"k8s.io/client-go/rest"
	api "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig is the user's kubeconfig, for providers outside of this package: read and written under kubectl's lock,
// mode 0600, each file whole or not at all.
type Kubeconfig struct{ file kubeconfigFile }

// NewKubeconfig takes one file or several, as KUBECONFIG is written; empty means ~/.kube/config.
func NewKubeconfig(value string) Kubeconfig {
	return Kubeconfig{kubeconfigFile{paths: kubeconfigPaths(value), after: time.After}}
}

// Link puts the entries called name in and makes name the current context. It gives the file it changed, or "" where
// all of it was there.
func (k Kubeconfig) Link(ctx context.Context, entries *api.Config, name string) (string, error) {
	return k.file.merge(ctx, entries, name, setCurrent)
}

// Unlink takes the entries called name out of every file.
func (k Kubeconfig) Unlink(ctx context.Context, name string) error { return k.file.remove(ctx, name) }

// Linked tells whether a file leads to the server under the context's name.
func (k Kubeconfig) Linked(context, server string) bool { return linked(k.file.paths, context, server) }

// LookAtNodes gives the API server's version and the first reason why a node is not ready, right now.
func LookAtNodes(ctx context.Context, config *rest.Config) (version, notReady string, err error) {
	return lookAtNodes(ctx, config)
}

// WaitNodes watches until as many nodes are there as wanted and all are Ready; its error says which is not, and why.
func WaitNodes(ctx context.Context, config *rest.Config, want int) error {
	return waitNodes(ctx, config, want)
}
