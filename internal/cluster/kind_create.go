package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	kindcluster "sigs.k8s.io/kind/pkg/cluster"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// cleanupTime bounds what is done after ctx has ended. mage kills the process 5 s after a Ctrl-C; what is left then is
// a half-created cluster, which the next run recognises by its mark and removes.
const cleanupTime = 25 * time.Second

// Create makes the cluster, or finishes or starts the one that is there. A half-created one is removed and created
// again. The user's kubeconfig is written, and its current context changed, only once all nodes are ready.
func (k *Kind) Create(ctx context.Context) error {
	if err := k.needDockerCommand(); err != nil {
		return err
	}
	unlock, err := k.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	info, err := k.Inspect(ctx)
	if err != nil {
		return err
	}
	switch info.State {
	case Foreign:
		return k.foreign(info)
	case Ready, Unlinked:
		return k.mergeKubeconfig(ctx, keepCurrent)
	case NotReady, Stopped:
		return k.revive(ctx, info)
	}
	if err := k.userKubeconfig().Check(ctx, k.contextName()); err != nil {
		return err
	}
	if info.State == Partial {
		engine.Progress(ctx, "removing the cluster that an earlier run left half-created")
		if err := k.sweep(ctx, false, nil); err != nil {
			return err
		}
	}
	if err := k.createNew(ctx); err != nil {
		return err
	}
	return k.mergeKubeconfig(ctx, setCurrent)
}

func (k *Kind) foreign(info Info) error {
	return problem.New(problem.ClusterForeign, nil,
		"a kind cluster named %q exists (%d containers), and it does not have this lab's mark", info.Name,
		len(info.Nodes)).
		With("Choose another name for the lab, for example SM_CLUSTER=" + info.Name +
			"-lab; the lab neither uses nor deletes that cluster.")
}

// createNew makes the cluster where there is none. Whatever goes wrong, no container of it stays behind.
func (k *Kind) createNew(ctx context.Context) error {
	if err := k.ensureImages(ctx); err != nil {
		return err
	}
	config, err := k.markedConfig(ctx)
	if err != nil {
		return err
	}
	// kind writes a kubeconfig at the end. It writes a temporary one, because the cluster is not ready then. The lock
	// makes the name ours alone, so what a killed run left there is replaced.
	scratch := filepath.Join(k.opts.LockDir, "kind-"+k.opts.Name+".scratch")
	defer func() { _ = os.RemoveAll(scratch) }() // the next run removes it if this one could not
	if err := os.RemoveAll(scratch); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}

	defer engine.Waiting(ctx)()
	log := newProgressLog(ctx)
	done := make(chan error, 1)
	go func() {
		done <- k.library(log).Create(k.opts.Name,
			kindcluster.CreateWithRawConfig(config),
			kindcluster.CreateWithNodeImage(k.opts.NodeImage),
			kindcluster.CreateWithKubeconfigPath(filepath.Join(scratch, "config")),
			// kind would remove the nodes before they could be asked what went wrong, and would race with our own
			// removal after a Ctrl-C.
			kindcluster.CreateWithRetain(true),
		)
	}()
	watching, stop := context.WithCancel(ctx)
	var announcing sync.WaitGroup
	announcing.Go(func() { k.announce(watching) })
	defer announcing.Wait()
	defer stop()
	select {
	case err = <-k.outOfReach(watching):
	case err = <-done:
		done = nil
		if err != nil {
			err = k.whyCreate(ctx, err)
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		err = k.finish(ctx)
	}
	if err == nil {
		return nil
	}
	stop()
	return k.abandon(ctx, done, err)
}

// signalDelay is how much earlier than our own context kind's docker commands may get a Ctrl-C: a terminal sends it to
// all of them.
const signalDelay = 200 * time.Millisecond

// whyCreate tells an interruption, which makes kind fail too, from a failure.
func (k *Kind) whyCreate(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-k.after(signalDelay):
	}
	bounded, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	return k.explainCreate(bounded, err)
}

// finish waits for all nodes, which kind does not (it looks at control planes only, and takes a time-out for success),
// and then marks the cluster complete.
func (k *Kind) finish(ctx context.Context) error {
	nodes, err := k.nodes(ctx)
	if err != nil {
		return err
	}
	if err := k.awaitReady(ctx, nodes); err != nil {
		return err
	}
	if err := k.markComplete(ctx, nodes); err != nil {
		return err
	}
	engine.Changed(ctx, engine.Change{
		Object: "kind cluster " + k.opts.Name, Action: engine.Create,
		Detail: fmt.Sprintf("%d nodes", kubernetesNodes(nodes)),
	})
	return nil
}

func kubernetesNodes(nodes []Node) int {
	count := 0
	for _, n := range nodes {
		if n.Role != node.LoadBalancer {
			count++
		}
	}
	return count
}

func (k *Kind) awaitReady(ctx context.Context, nodes []Node) error {
	if err := k.awaitReachable(ctx, nodes); err != nil {
		return err
	}
	cfg, err := k.RESTConfig(ctx)
	if err != nil {
		return err
	}
	return k.ready(ctx, cfg, kubernetesNodes(nodes))
}

// AwaitNodes implements NodeWaiter. Several steps wait side by side, and the first asks for all.
func (k *Kind) AwaitNodes(ctx context.Context) error {
	defer engine.Waiting(ctx)()
	k.awaiting.Lock()
	defer k.awaiting.Unlock()
	if k.awaited {
		return nil
	}
	want, err := roles(k.opts.Config)
	if err != nil {
		return err
	}
	if !k.until(ctx, k.serves) {
		return context.Cause(ctx)
	}
	cfg, err := k.RESTConfig(ctx)
	if err != nil {
		return err
	}
	if err := k.ready(ctx, cfg, want[node.ControlPlane]+want[node.Worker]); err != nil {
		return err
	}
	if err := k.awaitProxies(ctx); err != nil {
		return err
	}
	k.awaited = true
	return nil
}

// proxySynced waits in a node until kube-proxy has written its rules for the first time, for at most half a minute.
// Before that, a pod that asks the API server at its Service's address asks whatever the network of this machine has at
// that address. kube-proxy's health check says that it is healthy before that
// (k8s.io/kubernetes, pkg/proxy/healthcheck/proxy_health.go).
const proxySynced = `for i in $(seq 100); do
  curl -s http://127.0.0.1:10249/metrics |
    grep -Eq '^kubeproxy_sync_proxy_rules_last_timestamp_seconds(\{[^}]*\})? [1-9]' && exit 0
  sleep 0.3
done
exit 1`

// awaitProxies waits until kube-proxy on each node has written its rules. A cluster may have another program for that,
// or a kube-proxy with other settings: where it does not answer, pods are started all the same.
func (k *Kind) awaitProxies(ctx context.Context) error {
	doc, _, err := parseConfig(k.opts.Config)
	if err != nil {
		return err
	}
	if networking, ok := doc["networking"].(map[string]any); ok && networking["kubeProxyMode"] == "none" {
		return nil
	}
	nodes, err := k.nodes(ctx)
	if err != nil {
		return err
	}
	var asking errgroup.Group
	for _, n := range nodes {
		if n.Role == node.LoadBalancer {
			continue
		}
		asking.Go(func() error {
			_, err := docker.Exec(ctx, k.opts.Docker, n.ContainerID, "sh", "-c", proxySynced)
			if refused := (*docker.ExecError)(nil); errors.As(err, &refused) {
				engine.Tell(ctx, "node %s: kube-proxy does not say that it has written its rules; pods are started "+
					"all the same", n.Name)
				return nil
			}
			return err
		})
	}
	return asking.Wait()
}

func (k *Kind) markComplete(ctx context.Context, nodes []Node) error {
	first, ok := firstControlPlane(nodes)
	if !ok {
		return problem.New(
			problem.ClusterCreateFailed, nil, "kind reported success, and cluster %s has no control plane", k.opts.Name,
		)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: completeFile, Mode: 0o444, Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("writing the mark: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("writing the mark: %w", err)
	}
	_, err := k.opts.Docker.CopyToContainer(
		ctx, first.ContainerID, client.CopyToContainerOptions{DestinationPath: completeDir, Content: &archive},
	)
	if err != nil {
		return docker.Explain(
			ctx, fmt.Errorf("marking cluster %s complete in %s: %w", k.opts.Name, first.Name, err), k.opts.Endpoint,
		)
	}
	return nil
}

// abandon removes what createNew made. kind's library may still be running; see sweep.
func (k *Kind) abandon(ctx context.Context, running <-chan error, cause error) error {
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	engine.Progress(cleanup, "removing the unfinished cluster %s", k.opts.Name)
	if err := k.sweep(cleanup, false, running); err != nil {
		return fmt.Errorf("%w; and removing the unfinished cluster failed, which the next run will try again: %w",
			cause, err)
	}
	return fmt.Errorf("creating kind cluster %s failed, and its unfinished parts were removed: %w", k.opts.Name, cause)
}

// revive starts what is stopped and waits for the nodes. Nothing is removed when that fails: the cluster may hold the
// user's work.
func (k *Kind) revive(ctx context.Context, info Info) error {
	for _, n := range info.Nodes {
		if n.Running {
			continue
		}
		engine.Progress(ctx, "starting node container %s", n.Name)
		if _, err := k.opts.Docker.ContainerStart(ctx, n.ContainerID, client.ContainerStartOptions{}); err != nil {
			return docker.Explain(
				ctx,
				problem.New(problem.ClusterCreateFailed, err, "starting node container %s of cluster %s", n.Name,
					k.opts.Name),
				k.opts.Endpoint,
			)
		}
		engine.Changed(ctx, engine.Change{Object: "container " + n.Name, Action: engine.Run, Detail: "started"})
	}
	if err := k.awaitReady(ctx, info.Nodes); err != nil {
		return fmt.Errorf("waiting for cluster %s, which exists: %w", k.opts.Name, err)
	}
	return k.mergeKubeconfig(ctx, keepCurrent)
}

// ensureImages pulls the node images that Docker does not have. kind would do it by itself, five times over and beyond
// the reach of a Ctrl-C.
func (k *Kind) ensureImages(ctx context.Context) error {
	refs := []string{k.opts.NodeImage}
	if k.opts.NodeImage == "" {
		var err error
		if refs, err = NodeImages(k.opts.Config); err != nil {
			return err
		}
	}
	for _, ref := range refs {
		_, err := k.opts.Docker.ImageInspect(ctx, ref)
		if err == nil {
			continue
		}
		if !errdefs.IsNotFound(err) {
			return docker.Explain(ctx, fmt.Errorf("looking for node image %s: %w", ref, err), k.opts.Endpoint)
		}
		engine.Progress(ctx, "pulling node image %s", ref)
		if err := k.pull(ctx, ref); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("pulling node image %s: %w", ref, context.Cause(ctx))
			}
			return problem.New(problem.RegistryUnreachable, err, "node image %s is not in Docker and cannot be pulled",
				ref).
				With("Put it there with `docker pull " + ref +
					"` or `docker load`, or name another with SM_NODE_IMAGE.")
		}
		engine.Changed(ctx, engine.Change{Object: "image " + ref, Action: engine.Create, Detail: "pulled"})
	}
	return nil
}

func (k *Kind) pull(ctx context.Context, ref string) error {
	pulling, err := k.opts.Docker.ImagePull(ctx, ref, client.ImagePullOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = pulling.Close() }() // Wait has read it to the end
	return pulling.Wait(ctx)
}

// mergeKubeconfig puts the cluster's entries into the user's kubeconfig.
func (k *Kind) mergeKubeconfig(ctx context.Context, choice currentContext) error {
	entries, _, err := k.entries(ctx)
	if err != nil {
		return err
	}
	changed, err := k.userKubeconfig().merge(ctx, entries, k.contextName(), choice)
	if err != nil {
		return err
	}
	if changed != "" {
		engine.Changed(
			ctx,
			engine.Change{Object: "kubeconfig " + changed, Action: engine.Update, Detail: "context " + k.contextName()},
		)
	}
	return nil
}

func (k *Kind) userKubeconfig() Kubeconfig {
	return Kubeconfig{paths: kubeconfigPaths(k.opts.Kubeconfig), after: k.after}
}
