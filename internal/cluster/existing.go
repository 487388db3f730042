package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// ExistingOptions say which cluster is meant.
type ExistingOptions struct {
	// Kubeconfig is one file or several, as KUBECONFIG is written; empty means
	// ~/.kube/config. Its current context names the cluster.
	Kubeconfig string
	// Docker finds out which nodes are containers on this host (a kind cluster of
	// the user's own), which can be tuned; nil means none are.
	Docker node.Lister
}

// Existing is a cluster that the lab did not make: the one of the current kubeconfig
// context. The lab never deletes it.
type Existing struct {
	opts ExistingOptions
	kube func(*rest.Config) (kubernetes.Interface, error)
}

// NewExisting names the cluster; it touches nothing.
func NewExisting(opts ExistingOptions) *Existing {
	return &Existing{opts: opts, kube: func(cfg *rest.Config) (kubernetes.Interface, error) { return kubernetes.NewForConfig(cfg) }}
}

// Name is existing.
func (e *Existing) Name() string { return ProviderExisting }

// OldestKubernetes is the oldest version that Istio 1.31 supports
// (https://istio.io/latest/docs/releases/supported-releases/).
const OldestKubernetes = "1.32.0"

func (e *Existing) config() clientcmd.ClientConfig {
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: kubeconfigPaths(e.opts.Kubeconfig)}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
}

// Named gives context and server from the kubeconfig alone, so that they can be said
// before anything is touched.
func (e *Existing) Named() (Info, error) {
	info := Info{Provider: ProviderExisting, State: Absent, Packets: true}
	paths := strings.Join(kubeconfigPaths(e.opts.Kubeconfig), ", ")
	raw, err := e.config().RawConfig()
	if err != nil {
		return info, problem.New(problem.KubeconfigInvalid, err, "reading kubeconfig %s", paths)
	}
	info.Context = raw.CurrentContext
	if info.Context == "" {
		return info, problem.New(problem.ClusterNone, nil, "kubeconfig %s names no current context", paths).
			With("Choose one with `kubectl config use-context`, or set KUBECONFIG.")
	}
	chosen, ok := raw.Contexts[info.Context]
	if !ok {
		return info, problem.New(problem.KubeconfigInvalid, nil, "kubeconfig %s: the current context %q does not exist", paths, info.Context)
	}
	server, ok := raw.Clusters[chosen.Cluster]
	if !ok {
		return info, problem.New(problem.KubeconfigInvalid, nil, "kubeconfig %s: context %q names cluster %q, which does not exist", paths, info.Context, chosen.Cluster)
	}
	info.Name, info.Server = chosen.Cluster, server.Server
	return info, nil
}

// Inspect names the cluster and looks at its nodes. A cluster that does not answer
// is NotReady with the reason.
func (e *Existing) Inspect(ctx context.Context) (Info, error) {
	info, err := e.Named()
	if err != nil {
		return info, err
	}
	kube, err := e.client(ctx)
	if err != nil {
		return info, err
	}
	bounded, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	list, err := kube.CoreV1().Nodes().List(bounded, metav1.ListOptions{})
	if err != nil {
		if ctx.Err() != nil {
			return info, fmt.Errorf("inspecting the cluster of context %s: %w", info.Context, context.Cause(ctx))
		}
		info.State, info.Message = NotReady, err.Error()
		return info, nil
	}
	info.Exists, info.State = true, Ready
	for i := range list.Items {
		n := &list.Items[i]
		reason := notReady(n)
		if reason != "" && info.State == Ready {
			info.State, info.Message = NotReady, reason
		}
		info.Version = n.Status.NodeInfo.KubeletVersion
		info.Nodes = append(info.Nodes, Node{Name: n.Name, Role: role(n), InternalIP: internalIP(n), Running: reason == ""})
	}
	if v, err := kube.Discovery().ServerVersion(); err == nil {
		info.Version = v.GitVersion
	}
	info.Nodes, err = e.withContainers(ctx, info.Nodes)
	return info, err
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

// withContainers finds the nodes that are kind node containers on this host: same
// name and same address. A remote cluster's node of the same name has another.
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
		}
	}
	return nodes, nil
}

// Create creates nothing: it makes sure that the cluster answers, is new enough, and
// lets this user do what the lab needs.
func (e *Existing) Create(ctx context.Context) error {
	info, err := e.Named()
	if err != nil {
		return err
	}
	engine.Progress(ctx, "using the cluster of context %s at %s", info.Context, info.Server)
	kube, err := e.client(ctx)
	if err != nil {
		return err
	}
	if _, err := kube.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{}); err != nil {
		return problem.New(problem.ClusterUnreachable, err, "the cluster of context %s at %s", info.Context, info.Server)
	}
	found, err := kube.Discovery().ServerVersion()
	if err != nil {
		return problem.New(problem.ClusterUnreachable, err, "asking %s for its version", info.Server)
	}
	v, err := version.ParseSemantic(found.GitVersion)
	if err != nil || !v.AtLeast(version.MustParseSemantic(OldestKubernetes)) {
		return problem.New(problem.ClusterVersion, err, "the cluster of context %s runs Kubernetes %s; the lab needs %s or newer", info.Context, found.GitVersion, OldestKubernetes)
	}
	return mayInstall(ctx, kube, info)
}

// needs lists one right for each sort of thing the lab installs.
func needs() []authorizationv1.ResourceAttributes {
	return []authorizationv1.ResourceAttributes{
		{Verb: "create", Resource: "namespaces"},
		{Verb: "patch", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "patch", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"},
		{Verb: "patch", Group: "apps", Resource: "daemonsets", Namespace: "istio-system"},
		{Verb: "delete", Group: "apps", Resource: "deployments", Namespace: "istio-system"},
	}
}

func mayInstall(ctx context.Context, kube kubernetes.Interface, info Info) error {
	var missing []string
	for _, attributes := range needs() {
		review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
		}, metav1.CreateOptions{})
		if err != nil {
			return problem.New(problem.ClusterUnreachable, err, "asking %s what this user may do", info.Server)
		}
		if !review.Status.Allowed {
			missing = append(missing, strings.TrimSpace(attributes.Verb+" "+attributes.Resource+" "+attributes.Group))
		}
	}
	if len(missing) > 0 {
		return problem.New(problem.ApplyForbidden, nil, "this user may not, in the cluster of context %s: %s", info.Context, strings.Join(missing, ", "))
	}
	return nil
}

// Delete deletes nothing: the cluster is not the lab's. The lab's objects in it are
// the plan's to remove.
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

// CollectLogs writes the cluster's nodes, pods and events as JSON; the nodes' own
// logs are not within reach.
func (e *Existing) CollectLogs(ctx context.Context, dir string) error {
	kube, err := e.client(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	nodes, err := kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	pods, err := kube.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing pods: %w", err)
	}
	events, err := kube.CoreV1().Events(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing events: %w", err)
	}
	for name, list := range map[string]any{"nodes.json": nodes, "pods.json": pods, "events.json": events} {
		content, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			return fmt.Errorf("encoding %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return nil
}
