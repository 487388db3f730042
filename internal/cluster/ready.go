package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/klog/v2"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// notReady says why a node is not ready, in the kubelet's words, or "".
func notReady(n *corev1.Node) string {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return ""
		}
		return fmt.Sprintf("node %s: %s: %s", n.Name, c.Reason, c.Message)
	}
	return fmt.Sprintf("node %s: its kubelet has not reported yet", n.Name)
}

// LookAtNodes gives the API server's version and the first reason why a node is not ready, right now.
func LookAtNodes(ctx context.Context, cfg *rest.Config) (version, reason string, err error) {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return "", "", fmt.Errorf("making a client: %w", err)
	}
	nodes, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", "", err
	}
	info, err := kube.Discovery().ServerVersion()
	if err != nil {
		return "", "", err
	}
	for i := range nodes.Items {
		if reason = notReady(&nodes.Items[i]); reason != "" {
			break
		}
	}
	return info.GitVersion, reason, nil
}

// roster keeps the reasons why nodes are not ready. Only the waiting goroutine uses it.
type roster struct {
	reasons map[string]string
	want    int
}

func (r *roster) set(n *corev1.Node) { r.reasons[n.Name] = notReady(n) }

// waiting says what is still missing, or "".
func (r *roster) waiting() string {
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(r.reasons)) {
		if reason := r.reasons[name]; reason != "" {
			reasons = append(reasons, reason)
		}
	}
	if missing := r.want - len(r.reasons); missing > 0 {
		reasons = append(reasons, fmt.Sprintf("%d of %d nodes have not joined", missing, r.want))
	}
	return strings.Join(reasons, "; ")
}

// WaitNodes watches until want nodes are there and all nodes are Ready. Its error says which is not, and why.
func WaitNodes(ctx context.Context, cfg *rest.Config, want int) error {
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return fmt.Errorf("making a client: %w", err)
	}
	// The informer's own log would say on standard error that its watch was cancelled.
	quiet := klog.NewContext(ctx, logr.Discard())
	r := &roster{reasons: make(map[string]string), want: want}
	list := cache.NewListWatchFromClient(kube.CoreV1().RESTClient(), "nodes", metav1.NamespaceAll, fields.Everything())
	first := func(store cache.Store) (bool, error) {
		for _, item := range store.List() {
			if n, ok := item.(*corev1.Node); ok {
				r.set(n)
			}
		}
		return r.report(ctx) == "", nil
	}
	_, err = watchtools.UntilWithSync(quiet, list, &corev1.Node{}, first, func(ev watch.Event) (bool, error) {
		n, ok := ev.Object.(*corev1.Node)
		switch {
		case !ok:
		case ev.Type == watch.Deleted:
			delete(r.reasons, n.Name)
		default:
			r.set(n)
		}
		return r.report(ctx) == "", nil
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if len(r.reasons) == 0 {
			return neverAnswered(ctx, cfg, err)
		}
		return problem.New(problem.NotReady, err, "the cluster's nodes are not ready: %s", r.waiting())
	}
	return nil
}

// neverAnswered asks once more why no node was ever seen: the informer keeps that to itself.
func neverAnswered(ctx context.Context, cfg *rest.Config, err error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLook)
	defer cancel()
	_, _, silent := LookAtNodes(bounded, cfg)
	if silent == nil {
		return problem.New(problem.NotReady, err, "the cluster at %s has no nodes", cfg.Host)
	}
	return problem.New(
		problem.ClusterUnreachable, errors.Join(err, silent), "the API server at %s does not answer", cfg.Host,
	)
}

// lastLook bounds a look that is made after time has run out.
const lastLook = 2 * time.Second

func (r *roster) report(ctx context.Context) string {
	reason := r.waiting()
	if reason != "" {
		engine.Progress(ctx, "waiting for nodes: %s", reason)
	}
	return reason
}
