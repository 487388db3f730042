package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// ExistingOptions say which cluster is meant.
type ExistingOptions struct {
	// Kubeconfig is one file or several, as KUBECONFIG is written; empty means ~/.kube/config. Its current context
	// names the cluster.
	Kubeconfig string
	// Docker finds out which nodes are containers on this host (a kind cluster of the user's own), which can be tuned;
	// nil means none are.
	Docker lb.Docker
	// NoDocker is why no Docker engine could be asked, where Docker is nil.
	NoDocker error
}

// Existing is a cluster that the lab did not make: the one of the current kubeconfig context. The lab never deletes it.
//
// The context that is current when it is first asked for stays the one that is meant: a `kubectl config use-context` in
// another terminal must not lead a run that goes on to another cluster.
type Existing struct {
	opts ExistingOptions
	kube func(*rest.Config) (kubernetes.Interface, error)
	// limit bounds the look at the API server.
	limit time.Duration

	mu      sync.Mutex
	context string
}

// NewExisting names the cluster; it touches nothing.
func NewExisting(opts ExistingOptions) *Existing {
	return &Existing{
		opts: opts, limit: inspectTimeout,
		kube: func(cfg *rest.Config) (kubernetes.Interface, error) { return kubernetes.NewForConfig(cfg) },
	}
}

func (e *Existing) config() clientcmd.ClientConfig {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: kubeconfigPaths(e.opts.Kubeconfig)}
	e.mu.Lock()
	defer e.mu.Unlock()
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{CurrentContext: e.context},
	)
}

// chosen gives the context that is meant, and keeps it.
func (e *Existing) chosen(current string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.context == "" {
		e.context = current
	}
	return e.context
}

// Named gives context and server from the kubeconfig alone, so that they can be said before anything is touched.
func (e *Existing) Named() (Info, error) {
	info := Info{Provider: ProviderExisting, State: Absent, Packets: true}
	paths := strings.Join(kubeconfigPaths(e.opts.Kubeconfig), ", ")
	raw, err := e.config().RawConfig()
	if err != nil {
		return info, problem.New(problem.KubeconfigInvalid, err, "reading kubeconfig %s", paths)
	}
	info.Context = e.chosen(raw.CurrentContext)
	if info.Context == "" {
		if missing(kubeconfigPaths(e.opts.Kubeconfig)) {
			none := problem.New(problem.ClusterNone, nil, "kubeconfig %s does not exist", paths)
			none.Advice = []string{
				"Set KUBECONFIG to the kubeconfig of the cluster.",
				"Without INSTALL_KIND=n and SM_PROVIDER=existing, the lab creates a kind cluster of its own.",
			}
			return info, none
		}
		return info, problem.New(problem.ClusterNone, nil, "kubeconfig %s names no current context", paths).
			With("Choose one with `kubectl config use-context`, or set KUBECONFIG.")
	}
	chosen, ok := raw.Contexts[info.Context]
	if !ok {
		return info, problem.New(
			problem.KubeconfigInvalid, nil, "kubeconfig %s: the current context %q does not exist", paths, info.Context,
		)
	}
	server, ok := raw.Clusters[chosen.Cluster]
	if !ok {
		return info, problem.New(
			problem.KubeconfigInvalid, nil, "kubeconfig %s: context %q names cluster %q, which does not exist", paths,
			info.Context, chosen.Cluster,
		)
	}
	info.Name, info.Server = chosen.Cluster, server.Server
	return info, nil
}

// Inspect names the cluster and looks at its nodes. A cluster that does not answer is Unreachable with the reason. One
// that answers is Ready; if a node is not Ready, the message says so.
func (e *Existing) Inspect(ctx context.Context) (Info, error) {
	info, silent, err := e.look(ctx)
	if silent != nil {
		info.State, info.Message = Unreachable, silent.Error()
	}
	return info, err
}

// look is Inspect, with the error of a cluster that does not answer kept apart.
func (e *Existing) look(ctx context.Context) (info Info, silent, err error) {
	info, kube, nodes, silent, err := e.listNodes(ctx)
	if silent != nil || err != nil {
		return info, silent, err
	}
	info.Exists, info.State = true, Ready
	for i := range nodes {
		n := &nodes[i]
		reason := notReady(n)
		if reason != "" && info.Message == "" {
			info.Message = reason
		}
		info.Version = n.Status.NodeInfo.KubeletVersion
		info.Nodes = append(info.Nodes,
			Node{Name: n.Name, Role: role(n), InternalIP: internalIP(n), Running: reason == ""})
	}
	if v, err := kube.Discovery().ServerVersion(); err == nil {
		info.Version = v.GitVersion
	}
	info.Nodes, err = e.withContainers(ctx, info.Nodes)
	info.Elsewhere = e.elsewhere(info.Nodes)
	return info, nil, err
}

// listNodes logs in, if need be, and lists the nodes. silent is the error of a cluster that does not answer.
func (e *Existing) listNodes(
	ctx context.Context,
) (info Info, kube kubernetes.Interface, nodes []corev1.Node, silent, err error) {
	info, err = e.Named()
	if err != nil {
		return info, nil, nil, nil, err
	}
	cfg, err := e.RESTConfig(ctx)
	if err != nil {
		return info, nil, nil, nil, err
	}
	if err := login(ctx, cfg, info.Context); err != nil {
		return info, nil, nil, nil, err
	}
	kube, err = e.client(ctx)
	if err != nil {
		return info, nil, nil, nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, e.limit)
	defer cancel()
	list, err := kube.CoreV1().Nodes().List(bounded, metav1.ListOptions{})
	switch {
	case err == nil:
		return info, kube, list.Items, nil, nil
	case ctx.Err() != nil:
		err = fmt.Errorf("inspecting the cluster of context %s: %w", info.Context, context.Cause(ctx))
	case apierrors.IsUnauthorized(err): // it does answer
		err = problem.New(
			problem.ClusterLogin, err, "the cluster of context %s at %s does not accept the kubeconfig's credentials",
			info.Context, info.Server,
		)
	case apierrors.IsForbidden(err):
		err = problem.New(
			problem.ApplyForbidden, err, "the cluster of context %s at %s does not let this user list its nodes",
			info.Context, info.Server,
		)
	default:
		return info, nil, nil, err, nil
	}
	return info, nil, nil, nil, err
}

func unanswered(info Info, silent error) error {
	return problem.New(
		problem.ClusterUnreachable, silent, "the cluster of context %s at %s does not answer", info.Context,
		info.Server,
	)
}

func role(n *corev1.Node) string {
	if _, ok := n.Labels["node-role.kubernetes.io/control-plane"]; ok {
		return node.ControlPlane
	}
	return node.Worker
}

func internalIP(n *corev1.Node) string {
	for _, a := range n.Status.Addresses {
		if parsed, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && parsed.Is4() {
			return a.Address
		}
	}
	return ""
}

// withContainers finds the nodes that are kind node containers on this host: same name and same address. A remote
// cluster's node of the same name has another.
func (e *Existing) withContainers(ctx context.Context, nodes []Node) ([]Node, error) {
	if e.opts.Docker == nil {
		return nodes, nil
	}
	containers, err := node.List(ctx, e.opts.Docker, "")
	if err != nil {
		return nodes, err
	}
	for i, n := range nodes {
		at := slices.IndexFunc(containers, func(c Node) bool {
			return c.Name == n.Name && c.InternalIP != "" && c.InternalIP == n.InternalIP
		})
		if at >= 0 {
			nodes[i] = containers[at]
			nodes[i].Running = n.Running // the API server knows better whether it is ready
		}
	}
	return nodes, nil
}

// Create creates nothing: it makes sure that the cluster answers, is of a version that Istio supports, and lets this
// user do what the lab needs.
func (e *Existing) Create(ctx context.Context) error {
	info, silent, err := e.look(ctx)
	if err != nil {
		return err
	}
	engine.Progress(ctx, "using the cluster of context %s at %s", info.Context, info.Server)
	if silent != nil {
		return unanswered(info, silent)
	}
	return e.Vet(ctx, info)
}

// Delete deletes nothing: the cluster is not the lab's. The lab's objects in it are the plan's to remove.
func (e *Existing) Delete(context.Context) error { return nil }

// RESTConfig connects as the current context says.
func (e *Existing) RESTConfig(context.Context) (*rest.Config, error) {
	if _, err := e.Named(); err != nil {
		return nil, err
	}
	cfg, err := e.config().ClientConfig()
	if err != nil {
		return nil, problem.New(problem.KubeconfigInvalid, err, "the kubeconfig's current context cannot be used")
	}
	unthrottled(cfg)
	return cfg, nil
}

func (e *Existing) client(ctx context.Context) (kubernetes.Interface, error) {
	cfg, err := e.RESTConfig(ctx)
	if err != nil {
		return nil, err
	}
	kube, err := e.kube(cfg)
	if err != nil {
		return nil, problem.New(problem.KubeconfigInvalid, err, "the kubeconfig's current context cannot be used")
	}
	return kube, nil
}
