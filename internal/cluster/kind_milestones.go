package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
)

// The milestones of the step that creates a cluster; see Step.
const (
	// MilestoneNodes: the containers of all nodes run, and images can be loaded into them.
	MilestoneNodes = "nodes"
	// MilestoneAPI: the API server answers the administrator. The nodes may not be ready, or not even have joined.
	MilestoneAPI = "api-server"
)

// milestoneInterval is how often Docker and the API server are asked whether a milestone is reached: neither has a
// watch for it.
const milestoneInterval = 200 * time.Millisecond

// announce reports the milestones of a cluster that is being created, until ctx ends.
func (k *Kind) announce(ctx context.Context) {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	early := !k.restartsContainerd()
	if early {
		waiting.Go(func() { k.announceNodes(ctx) })
	}
	if k.until(ctx, k.serves) {
		engine.Reached(ctx, MilestoneAPI)
		if !early {
			k.announceNodes(ctx)
		}
	}
}

func (k *Kind) announceNodes(ctx context.Context) {
	if k.until(ctx, k.takesImages) {
		engine.Reached(ctx, MilestoneNodes)
	}
}

// until asks until the answer is yes, and tells whether it was.
func (k *Kind) until(ctx context.Context, reached func(context.Context) bool) bool {
	for !reached(ctx) {
		select {
		case <-k.after(milestoneInterval):
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

// restartsContainerd tells whether kind restarts the containerd of the nodes while it creates the cluster, as it does
// to patch its configuration (kind, pkg/cluster/internal/create/actions/config). An import of images would fail then.
func (k *Kind) restartsContainerd() bool {
	doc, _, err := parseConfig(k.opts.Config)
	return err != nil || doc["containerdConfigPatches"] != nil || doc["containerdConfigPatchesJSON6902"] != nil
}

// containerdAnswers waits in a node until its containerd answers, for at most a minute. Asking in the node takes much
// less of the machine than one `docker exec` for each try.
const containerdAnswers = "for i in $(seq 300); do ctr version >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1"

// takesImages tells whether all nodes run, and waits until their containerd answers.
func (k *Kind) takesImages(ctx context.Context) bool {
	want, err := roles(k.opts.Config)
	if err != nil {
		return false
	}
	nodes, err := k.nodes(ctx)
	if err != nil {
		return false
	}
	running := 0
	for _, n := range nodes {
		if k.marked(n) && n.Running && n.InternalIP != "" {
			running++
		}
	}
	if running < want[node.ControlPlane]+want[node.Worker] {
		return false
	}
	var asking errgroup.Group
	for _, n := range nodes {
		if !k.marked(n) {
			continue // a load balancer
		}
		asking.Go(func() error {
			_, err := docker.Exec(ctx, k.opts.Docker, n.ContainerID, "sh", "-c", containerdAnswers)
			return err
		})
	}
	return asking.Wait() == nil
}

// adminConfig is where kubeadm writes the administrator's credentials on a control plane.
const adminConfig = "/etc/kubernetes/admin.conf"

// serves tells whether the API server of the cluster answers the administrator from here.
func (k *Kind) serves(ctx context.Context) bool {
	nodes, err := k.nodes(ctx)
	if err != nil {
		return false
	}
	first, ok := firstControlPlane(nodes)
	if !ok || !first.Running {
		return false
	}
	if _, err := k.opts.Docker.ContainerStatPath(ctx, first.ContainerID,
		client.ContainerStatPathOptions{Path: adminConfig}); err != nil {
		return false
	}
	entries, reached, err := k.entriesOf(ctx, nodes)
	if err != nil || !reached {
		return false
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*entries, nil).ClientConfig()
	return err == nil && k.admits(ctx, cfg) == nil
}

// admits asks for something that exists once the API server has made its own objects, and that the administrator may
// read once kubeadm has made its role binding.
func admits(ctx context.Context, cfg *rest.Config) error {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	_, err = kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	return err
}
