package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Delete removes the lab's cluster and its kubeconfig entries, a half-created one
// too. It refuses a cluster that does not bear the lab's mark. Where there is no
// cluster it does nothing: kubeconfig entries of that name are then someone else's.
func (k *Kind) Delete(ctx context.Context) error {
	unlock, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	nodes, err := k.nodes(ctx)
	if err != nil || len(nodes) == 0 {
		return err
	}
	if !k.owned(nodes) {
		return k.foreign(Info{Name: k.opts.Name, Nodes: nodes})
	}
	// The kubeconfig first: were it the other way round, a run killed in between
	// would leave entries that no later run recognises as the lab's.
	if err := k.userKubeconfig().remove(ctx, k.contextName()); err != nil {
		return err
	}
	engine.Progress(ctx, "removing %d containers", len(nodes))
	return k.sweep(ctx, nil)
}

// How often sweep looks, and for how long it must find nothing. A docker command
// that a killed run left behind may be about to make one more container: the engine
// goes on with a request whose client is gone.
const (
	sweepInterval = 100 * time.Millisecond
	sweepQuiet    = 5
)

// sweep removes the lab's containers of this cluster with their volumes, until none
// turns up any more. While kind's library is at work (running is not nil) it goes on:
// with the nodes gone, whatever kind tries next fails, and that ends it. kind itself
// returns at the first node that fails, while others are still being started
// (kind, pkg/errors/concurrent.go).
func (k *Kind) sweep(ctx context.Context, running <-chan error) error {
	var failed error
	for quiet := 0; quiet < sweepQuiet; {
		var found int
		found, failed = k.removeOnce(ctx)
		switch {
		case found > 0 || failed != nil || running != nil:
			quiet = 0
		default:
			quiet++
		}
		select {
		case <-running:
			running = nil
		case <-k.after(sweepInterval):
		case <-ctx.Done():
			return errors.Join(problem.New(problem.ClusterCreateFailed, context.Cause(ctx), "removing the containers of kind cluster %s", k.opts.Name), failed)
		}
	}
	return nil
}

// removeOnce removes what is there now, all at once, and says how much that was.
func (k *Kind) removeOnce(ctx context.Context) (int, error) {
	nodes, err := k.nodes(ctx)
	if err != nil {
		return 0, err
	}
	var group errgroup.Group
	found := 0
	for _, n := range nodes {
		if !k.marked(n) && n.Role != node.LoadBalancer {
			continue
		}
		found++
		group.Go(func() error {
			_, err := k.opts.Docker.ContainerRemove(ctx, n.ContainerID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
			// A conflict says that the removal is already in progress.
			if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
				return nil
			}
			return docker.Explain(ctx, fmt.Errorf("removing container %s: %w", n.Name, err), k.opts.Endpoint)
		})
	}
	return found, group.Wait()
}
