package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Delete removes the lab's cluster and its kubeconfig entries, a half-created one too. It refuses a cluster that does
// not have the lab's mark. Where there is no cluster it does nothing: kubeconfig entries of that name are then someone
// else's.
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
	// The kubeconfig first: were it the other way round, a run killed in between would leave entries that no later run
	// recognises as the lab's.
	if err := k.userKubeconfig().Unlink(ctx, k.contextName()); err != nil {
		return err
	}
	engine.Progress(ctx, "removing %d containers", len(nodes))
	complete, err := k.complete(ctx, nodes)
	return k.sweep(ctx, complete && err == nil, nil)
}

// How often sweep looks, and how often it must find nothing where a container may still appear: the engine goes on with
// a request whose client is gone, so a docker command that a killed run left behind may be about to make one more.
const (
	sweepInterval = 100 * time.Millisecond
	sweepQuiet    = 5
)

// sweep removes the lab's containers of this cluster with their volumes, each as soon as it is seen, until none is
// left. Unless the cluster is complete, it goes on until none has appeared for a while. While kind's library runs
// (running is not nil) it goes on as well: with the nodes gone, kind's next command fails, and that ends kind. kind
// itself returns at the first node that fails, while others are still being started (kind, pkg/errors/concurrent.go).
func (k *Kind) sweep(ctx context.Context, complete bool, running <-chan error) error {
	var (
		mu       sync.Mutex
		removing = make(map[string]bool)
		failed   error
		group    sync.WaitGroup
	)
	defer group.Wait()
	defer engine.Waiting(ctx)()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	remove := func(n Node) {
		err := k.remove(ctx, n)
		mu.Lock()
		defer mu.Unlock()
		delete(removing, n.ContainerID) // if it is still there, it is tried again
		failed = err
	}
	for quiet := 0; ; {
		nodes, err := k.nodes(ctx)
		mu.Lock()
		for _, n := range nodes {
			if (k.marked(n) || n.Role == node.LoadBalancer) && !removing[n.ContainerID] {
				removing[n.ContainerID] = true
				group.Go(func() { remove(n) })
			}
		}
		busy := len(removing) > 0 || err != nil || running != nil
		last := errors.Join(failed, err)
		mu.Unlock()
		if busy {
			quiet = 0
		} else if quiet++; complete || quiet == sweepQuiet {
			return nil
		}
		select {
		case <-running:
			running = nil
		case <-k.after(sweepInterval):
		case <-ctx.Done():
			return errors.Join(
				problem.New(
					problem.ClusterCreateFailed, context.Cause(ctx), "removing the containers of kind cluster %s",
					k.opts.Name,
				),
				last,
			)
		}
	}
}

func (k *Kind) remove(ctx context.Context, n Node) error {
	_, err := k.opts.Docker.ContainerRemove(
		ctx, n.ContainerID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true},
	)
	// A conflict says that the removal is already in progress.
	if err == nil || errdefs.IsNotFound(err) || errdefs.IsConflict(err) {
		return nil
	}
	return docker.Explain(ctx, fmt.Errorf("removing container %s: %w", n.Name, err), k.opts.Endpoint)
}
