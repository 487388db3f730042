package lab

import (
	"context"
	"errors"
	"fmt"

	"ambientlab/internal/cluster"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// chooseExisting takes the cluster of the current kubeconfig context. A Docker engine is looked for, because the nodes
// may be containers of it; most clusters' nodes are not, so that there is none is no error.
func (l *Lab) chooseExisting(ctx context.Context) error {
	options := cluster.ExistingOptions{Kubeconfig: l.Settings.Kubeconfig}
	if _, err := l.dockerInfo(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l.docker, l.noDocker, options.NoDocker = nil, err, err
	} else {
		options.Docker = l.docker
	}
	l.existing = cluster.NewExisting(options)
	l.provider = l.existing
	return nil
}

// sayWhich names an existing cluster before anything is touched: which one it is depends on a context that another
// program may have changed.
func (l *Lab) sayWhich() error {
	if l.existing == nil || l.named {
		return nil
	}
	info, err := l.existing.Named()
	if err != nil {
		return err
	}
	l.named = true
	l.tell("cluster: context %s at %s, one that the lab did not make", info.Context, info.Server)
	return nil
}

// mustBeInstalled refuses an existing cluster that does not bear this lab's record: the current context may lead to
// another cluster than the one that sm:install worked on.
func (l *Lab) mustBeInstalled(ctx context.Context, info cluster.Info) error {
	record, err := l.record(ctx)
	if err != nil {
		return err
	}
	switch other := record[recordLab]; {
	case record == nil:
		return problem.New(problem.ClusterNone, nil, "lab %q is not on the cluster of context %s at %s", l.Settings.Cluster, info.Context, info.Server).
			With("If that is another cluster than you mean, choose the right one: kubectl config use-context.")
	case other != l.Settings.Cluster:
		return problem.New(problem.ObjectOfAnotherLab, nil, "on the cluster of context %s at %s is lab %q, not %q", info.Context, info.Server, other, l.Settings.Cluster).
			With("To go on with that lab: SM_CLUSTER=" + other + ".")
	}
	return nil
}

// nodesHere tells which nodes of the cluster are containers of this host's Docker engine.
type nodesHere struct {
	here      []node.Node
	elsewhere []string
	context   string
}

func (n nodesHere) all() bool { return len(n.here) > 0 && len(n.elsewhere) == 0 }

// nodesHere looks for the cluster's nodes: a kind cluster's are all containers of this engine.
func (l *Lab) nodesHere(ctx context.Context) (nodesHere, error) {
	if l.Settings.Provider != ProviderExisting {
		nodes, err := node.List(ctx, l.docker, l.Settings.Cluster)
		return nodesHere{here: nodes}, err
	}
	info, err := l.provider.Inspect(ctx)
	if err != nil {
		return nodesHere{}, err
	}
	return sortNodes(info), refuse(info)
}

func sortNodes(info cluster.Info) nodesHere {
	found := nodesHere{context: info.Context}
	for _, n := range info.Nodes {
		if n.ContainerID == "" {
			found.elsewhere = append(found.elsewhere, n.Name)
			continue
		}
		found.here = append(found.here, n)
	}
	return found
}

// checkNodes refuses settings that only go with nodes on this host, where the nodes of an existing cluster are
// elsewhere.
func (l *Lab) checkNodes(info cluster.Info) error {
	found := sortNodes(info)
	var errs []error
	if l.bundle != nil {
		errs = append(errs, l.needContainers(found))
	}
	if l.Settings.UseMetalLB() {
		errs = append(errs, l.needNetwork(found))
	}
	return errors.Join(errs...)
}

// needContainers refuses to load images into nodes that are not all kind's containers on this host.
func (l *Lab) needContainers(found nodesHere) error {
	if l.Settings.Provider != ProviderExisting || found.all() {
		return nil
	}
	return problem.New(problem.SettingInvalid, nil,
		"SM_BUNDLE=%s goes with nodes that are kind containers on this host, because only into those can images be loaded; the cluster of context %s has %s",
		l.Settings.Bundle, found.context, l.others(found)).
		With("Unset SM_BUNDLE, and let the nodes pull their images.")
}

// leaveBundleAside keeps a status from taking the images of a bundle for those that run on a cluster into which it
// cannot have been loaded.
func (l *Lab) leaveBundleAside(info cluster.Info) error {
	if l.bundle == nil || l.Settings.Provider != ProviderExisting || sortNodes(info).all() {
		return nil
	}
	l.tell("SM_BUNDLE is left aside: its images cannot be loaded into the nodes of this cluster")
	err := l.bundle.Close()
	l.bundle = nil
	return err
}

// needNetwork refuses load-balancer addresses where there is no Docker network to take them from.
func (l *Lab) needNetwork(found nodesHere) error {
	if l.embedded != nil { // whose addresses are of no network
		return nil
	}
	if l.Settings.Provider != ProviderExisting || len(found.here) > 0 {
		return nil
	}
	return problem.New(problem.SettingInvalid, nil,
		"SM_METALLB=on needs nodes that are containers of a Docker network on this host, from which the addresses are taken; the cluster of context %s has %s",
		found.context, l.others(found)).
		With("Unset SM_METALLB, and use the load balancer that the cluster has.")
}

// others says how many nodes are elsewhere, and why nobody could look where that is so.
func (l *Lab) others(found nodesHere) string {
	text := "no nodes"
	if len(found.elsewhere) > 0 {
		text = fmt.Sprintf("%d of %d nodes elsewhere, such as %s", len(found.elsewhere), len(found.elsewhere)+len(found.here), found.elsewhere[0])
	}
	if l.noDocker != nil {
		text += fmt.Sprintf(" (no Docker engine answers: %v)", l.noDocker)
	}
	return text
}
