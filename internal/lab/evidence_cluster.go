package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/dump"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/redact"
	"ambientlab/internal/session"
)

// connected is a lab's cluster whose API server answered when the collecting began.
type connected struct {
	lab       string
	provider  cluster.Provider
	kube      kubernetes.Interface
	objects   dynamic.Interface
	forwarder *mesh.Forwarder
	// namespaces are those of the lab: of others, a cluster may have many.
	namespaces []string

	listed func(ctx context.Context) ([]corev1.Pod, error)
}

// connect connects to the cluster of a provider, and asks its API server once.
func connect(ctx context.Context, env *session.Env, provider cluster.Provider) (*connected, error) {
	config, err := provider.RESTConfig(ctx)
	if err != nil {
		return nil, err
	}
	c := &connected{lab: env.Settings.Cluster, provider: provider}
	if c.forwarder, err = mesh.NewForwarder(config); err != nil {
		return nil, err
	}
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if c.objects, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	namespace := env.Settings.Namespace
	record, err := session.ReadRecord(ctx, c.kube)
	switch {
	case record != nil:
		namespace = cmp.Or(record.Namespace, namespace)
	case err != nil && !apierrors.IsForbidden(err):
		return nil, fmt.Errorf("the API server does not answer: %w", err)
	}
	c.namespaces = []string{namespace, names.Istio, "metallb-system", metav1.NamespaceSystem}
	c.listed = c.lister()
	return c, nil
}

// lister lists the pods of the lab's namespaces, once.
func (c *connected) lister() func(context.Context) ([]corev1.Pod, error) {
	var once sync.Once
	var pods []corev1.Pod
	var failed error
	return func(ctx context.Context) ([]corev1.Pod, error) {
		once.Do(func() {
			for _, namespace := range c.namespaces {
				list, err := c.kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
				if err != nil {
					failed = errors.Join(failed, fmt.Errorf("listing the pods of namespace %s: %w", namespace, err))
					continue
				}
				pods = append(pods, list.Items...)
			}
		})
		return pods, failed
	}
}

// Kinds that are left out: they hold secrets, change all the time, or are collected in another way.
var leftOut = []string{"secrets", "events", "leases", "componentstatuses", "endpoints", "controllerrevisions"}

// always are kinds without a namespace of which all objects are collected: those of others affect the lab too.
var always = []string{
	"nodes", "namespaces", "gatewayclasses", "mutatingwebhookconfigurations", "validatingwebhookconfigurations",
}

// collectObjects writes the objects with the lab's labels, and those in its namespaces, as YAML: one file for each kind
// and namespace. Of Secrets it writes the names and the sizes of their values.
func (c *connected) collectObjects(ctx context.Context, add dump.Add) error {
	lists, err := discovery.ServerPreferredResources(c.kube.Discovery())
	if len(lists) == 0 {
		return fmt.Errorf("asking the API server for its kinds: %w", err)
	}
	var group errgroup.Group
	group.SetLimit(8)
	errs := &joined{}
	errs.add(err)
	each := func(resource schema.GroupVersionResource, namespace string, options metav1.ListOptions) {
		group.Go(func() error {
			list, err := c.objects.Resource(resource).Namespace(namespace).List(ctx, options)
			if err != nil {
				if !apierrors.IsNotFound(err) && !apierrors.IsMethodNotSupported(err) {
					errs.add(fmt.Errorf("listing %s: %w", resource.Resource, err))
				}
				return nil
			}
			if content := objectsText(list.Items); content != nil {
				add(objectsFile(namespace, resource), content)
			}
			return nil
		})
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, kind := range list.APIResources {
			if !slices.Contains(kind.Verbs, "list") || slices.Contains(leftOut, kind.Name) {
				continue
			}
			resource := version.WithResource(kind.Name)
			switch {
			case kind.Namespaced:
				for _, namespace := range c.namespaces {
					options := metav1.ListOptions{}
					if namespace == metav1.NamespaceSystem {
						options.LabelSelector = apply.LabelName + "=" + c.lab
					}
					each(resource, namespace, options)
				}
			case slices.Contains(always, kind.Name):
				each(resource, "", metav1.ListOptions{})
			default:
				each(resource, "", metav1.ListOptions{LabelSelector: apply.LabelName + "=" + c.lab})
			}
		}
	}
	group.Go(func() error {
		for _, namespace := range c.namespaces {
			list, err := c.kube.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				errs.add(fmt.Errorf("listing the names of secrets: %w", err))
				continue
			}
			add("cluster/objects/"+namespace+"/secrets.txt", secretNames(list.Items))
		}
		return nil
	})
	_ = group.Wait() // the errors are in errs
	return errs.err()
}

// joined collects errors of several goroutines.
type joined struct {
	mu   sync.Mutex
	errs []error
}

func (j *joined) add(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.errs = append(j.errs, err)
}

func (j *joined) err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.errs...)
}

func objectsFile(namespace string, resource schema.GroupVersionResource) string {
	if namespace == "" {
		namespace = "_"
	}
	kind := strings.TrimSuffix(resource.Resource+"."+resource.Group, ".")
	return "cluster/objects/" + namespace + "/" + kind + ".yaml"
}

func secretNames(list []corev1.Secret) []byte {
	var b bytes.Buffer
	for _, secret := range list {
		fmt.Fprintf(&b, "%s %s\n", secret.Name, secret.Type)
		for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
			fmt.Fprintf(&b, "  %s %d bytes\n", key, len(secret.Data[key]))
		}
	}
	return b.Bytes()
}

// objectsText writes objects without what no reader needs, in the order of their names; nil where there is none.
func objectsText(list []unstructured.Unstructured) []byte {
	slices.SortFunc(list, func(a, b unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	var b bytes.Buffer
	for i := range list {
		object := &list[i]
		object.SetManagedFields(nil)
		object.SetResourceVersion("")
		object.SetUID("")
		annotations := object.GetAnnotations()
		delete(annotations, corev1.LastAppliedConfigAnnotation)
		object.SetAnnotations(annotations)
		if object.GetKind() == "CustomResourceDefinition" {
			unstructured.RemoveNestedField(object.Object, "spec") // as it is in the pinned modules, and long
		}
		hideVariables(object.Object)
		content, err := yaml.Marshal(object.Object)
		if err != nil {
			content = []byte(err.Error())
		}
		b.WriteString("---\n")
		b.Write(content)
	}
	if b.Len() == 0 {
		return nil
	}
	return b.Bytes()
}

// hideVariables removes the values of variables whose names are those of secrets: in a list of variables the name and
// the value are two fields, so that the form of the text does not show it.
func hideVariables(value any) {
	switch v := value.(type) {
	case map[string]any:
		if name, _ := v["name"].(string); v["value"] != nil && redact.IsSecretName(name) {
			v["value"] = redact.Mark
		}
		for _, inner := range v {
			hideVariables(inner)
		}
	case []any:
		for _, inner := range v {
			hideVariables(inner)
		}
	}
}

// collectPods writes the map: the nodes with their pods, and why a pod is not ready.
func (c *connected) collectPods(ctx context.Context, add dump.Add) error {
	nodes, errNodes := c.kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	pods, errPods := c.listed(ctx)
	view := []dump.Node{}
	at := map[string]int{}
	if errNodes == nil {
		for _, node := range nodes.Items {
			at[node.Name] = len(view)
			n := dump.Node{Name: node.Name, State: "not ready"}
			for _, condition := range node.Status.Conditions {
				if condition.Type != corev1.NodeReady {
					continue
				}
				if n.Ready = condition.Status == corev1.ConditionTrue; n.Ready {
					n.State = "ready"
				} else {
					n.State = "not ready: " + condition.Message
				}
			}
			view = append(view, n)
		}
	}
	for i := range pods {
		node := cmp.Or(pods[i].Spec.NodeName, "no node")
		if _, known := at[node]; !known {
			at[node] = len(view)
			view = append(view, dump.Node{Name: node, State: "unknown"})
		}
		view[at[node]].Pods = append(view[at[node]].Pods, podView(&pods[i]))
	}
	for _, node := range view {
		slices.SortFunc(node.Pods, func(a, b dump.Pod) int {
			return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
		})
	}
	content, err := json.MarshalIndent(view, "", "  ")
	if err == nil {
		add(dump.MapName, content)
	}
	return errors.Join(errNodes, errPods, err)
}

func podView(pod *corev1.Pod) dump.Pod {
	view := dump.Pod{
		Namespace: pod.Namespace, Name: pod.Name, Ready: apply.PodState(pod).Ready, State: string(pod.Status.Phase),
	}
	if pod.DeletionTimestamp != nil {
		view.State += ", being deleted"
	}
	if view.Ready {
		return view
	}
	if trouble := (apply.Pods{Items: []corev1.Pod{*pod}}).Trouble(); trouble != nil {
		view.Reason = trouble.Error()
		return view
	}
	for _, condition := range pod.Status.Conditions { // of a pod that is being deleted
		if condition.Status != corev1.ConditionTrue && condition.Message != "" {
			view.Reason = condition.Message
		}
	}
	return view
}

// collectEvents writes the events of the lab's namespaces.
func (c *connected) collectEvents(ctx context.Context, add dump.Add) error {
	var errs []error
	list := []dump.Event{}
	for _, namespace := range append(slices.Clone(c.namespaces), metav1.NamespaceDefault) {
		if namespace == metav1.NamespaceDefault && slices.Contains(c.namespaces, namespace) {
			continue // nodes have their events there
		}
		events, err := c.kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the events of namespace %s: %w", namespace, err))
			continue
		}
		for _, event := range events.Items {
			object := event.InvolvedObject
			name := strings.TrimPrefix(object.Namespace+"/"+object.Name, "/")
			list = append(list, dump.Event{
				Last: lastSeen(event), Type: event.Type, Reason: event.Reason, Message: event.Message,
				Object: strings.TrimSpace(object.Kind + " " + name), Count: int(max(event.Count, 1)),
			})
		}
	}
	slices.SortFunc(list, func(a, b dump.Event) int {
		return cmp.Or(a.Last.Compare(b.Last), strings.Compare(a.Object, b.Object),
			strings.Compare(a.Message, b.Message))
	})
	content, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		add(dump.EventsName, content)
	}
	return errors.Join(append(errs, err)...)
}

func lastSeen(event corev1.Event) time.Time {
	for _, seen := range []time.Time{event.LastTimestamp.Time, event.EventTime.Time, event.FirstTimestamp.Time} {
		if !seen.IsZero() {
			return seen
		}
	}
	return event.CreationTimestamp.Time
}

// logTail is how many lines of a container's log are read.
const logTail = int64(4000)

// collectLogs writes the logs of all pods, and of containers that were restarted the logs before.
func (c *connected) collectLogs(ctx context.Context, add dump.Add) error {
	pods, err := c.listed(ctx)
	folders := podFolders(pods)
	var group errgroup.Group
	group.SetLimit(12)
	errs := &joined{}
	errs.add(err)
	for i := range pods {
		pod, folder := &pods[i], folders[i]
		if _, simulated := pod.Annotations[embedded.Simulated]; simulated {
			continue // it runs nothing, so it has no logs
		}
		for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			read := func(previous bool, name string) {
				group.Go(func() error {
					tail := logTail
					options := &corev1.PodLogOptions{
						Container: status.Name, Previous: previous, TailLines: &tail, Timestamps: true,
					}
					content, err := c.kube.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, options).DoRaw(ctx)
					if err != nil {
						errs.add(fmt.Errorf("the log of container %s of pod %s/%s: %w", status.Name, pod.Namespace,
							pod.Name, err))
						return nil
					}
					add(folder+"/"+name+dump.LogSuffix, content)
					return nil
				})
			}
			if status.State.Running != nil || status.State.Terminated != nil {
				read(false, status.Name)
			}
			if status.RestartCount > 0 {
				read(true, status.Name+".before")
			}
		}
	}
	_ = group.Wait() // the errors are in errs
	return errs.err()
}

// podFolders names a folder of the dump for each pod: by the pod's workload and a number, since the names of pods are
// others in every run.
func podFolders(pods []corev1.Pod) []string {
	order := make([]int, len(pods))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(strings.Compare(pods[a].Spec.NodeName, pods[b].Spec.NodeName),
			pods[a].CreationTimestamp.Compare(pods[b].CreationTimestamp.Time),
			strings.Compare(pods[a].Name, pods[b].Name))
	})
	folders := make([]string, len(pods))
	count := map[string]int{}
	for _, i := range order {
		pod := &pods[i]
		workload := pod.Name
		for _, owner := range pod.OwnerReferences {
			if owner.Controller != nil && *owner.Controller && owner.Kind != "Node" {
				workload = strings.TrimSuffix(owner.Name, "-"+pod.Labels["pod-template-hash"])
			}
		}
		key := "pods/" + pod.Namespace + "/" + workload
		count[key]++
		folders[i] = fmt.Sprintf("%s-%d", key, count[key])
	}
	return folders
}

// debugPages are what istiod says about its proxies, on a port that only its own pod reaches.
var debugPages = map[string]string{
	"syncz.json": "/debug/syncz", "push-status.json": "/debug/push_status", "registry.json": "/debug/registryz",
}

// collectIstiod writes which proxies istiod knows and what it pushed to them, and its metrics.
func (c *connected) collectIstiod(ctx context.Context, add dump.Add) error {
	if process, is := c.provider.(cluster.Monitored); is {
		address, err := process.MetricsAddress()
		if err != nil {
			return err
		}
		metrics, err := get(ctx, "http://"+address+"/metrics")
		if err != nil {
			return fmt.Errorf("istiod's metrics: %w", err)
		}
		add("istiod/metrics.txt", metrics)
		return errors.New("its pages about what each proxy has: they would answer everyone who uses this machine, so " +
			"istiod has none here; its metrics count pushes and what proxies refused")
	}
	pods, err := c.running(ctx, func(pod *corev1.Pod) bool { return pod.Labels["app"] == "istiod" })
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return errors.New("no pod of istiod runs")
	}
	const debugPort, metricsPort = 8080, 15014
	return c.read(pods, func(pod *corev1.Pod, folder string, errs *joined) {
		for file, page := range debugPages {
			c.page(ctx, pod, debugPort, page, "istiod/"+folder+"/"+file, add, errs)
		}
		c.page(ctx, pod, metricsPort, "/metrics", "istiod/"+folder+"/metrics.txt", add, errs)
	})
}

// adminPages are what a proxy says about itself.
var adminPages = map[string]string{
	"config.json": "/config_dump?include_eds", "listeners.txt": "/listeners", "clusters.txt": "/clusters",
	"stats.txt": "/stats", "certs.json": "/certs", "server.json": "/server_info",
}

const proxyAdminPort = 15000

// collectProxies writes what the gateway's and the waypoint's proxies hold, or where no packets flow, what istiod sends
// to them.
func (c *connected) collectProxies(ctx context.Context, add dump.Add) error {
	pods, err := c.running(ctx, func(pod *corev1.Pod) bool {
		return pod.Labels[mesh.GatewayLabel] != ""
	})
	if err != nil {
		return err
	}
	runner, simulated := c.provider.(cluster.PodRunner)
	source, asksIstiod := c.provider.(cluster.ConfigSource)
	simulated = simulated && asksIstiod && runner.WhyNoPackets() != ""
	return c.read(pods, func(pod *corev1.Pod, folder string, errs *joined) {
		if !simulated {
			for file, page := range adminPages {
				c.page(ctx, pod, proxyAdminPort, page, "proxies/"+folder+"/"+file, add, errs)
			}
			return
		}
		resources, err := mesh.NewIstiod(c.kube, source.XDSAddress).Resources(ctx, pod.Namespace, pod.Name)
		if err == nil {
			var content []byte
			if content, err = json.MarshalIndent(resources, "", "  "); err == nil {
				add("proxies/"+folder+"/sent-by-istiod.json", content)
			}
		}
		errs.add(err)
	})
}

// collectZtunnels writes what each node's ztunnel holds.
func (c *connected) collectZtunnels(ctx context.Context, add dump.Add) error {
	if runner, is := c.provider.(cluster.PodRunner); is && runner.WhyNoPackets() != "" {
		return fmt.Errorf("its pods run nothing: %s", runner.WhyNoPackets())
	}
	pods, err := c.running(ctx, func(pod *corev1.Pod) bool { return pod.Labels["app"] == "ztunnel" })
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return errors.New("no pod of ztunnel runs")
	}
	const metricsPort = 15020
	return c.read(pods, func(pod *corev1.Pod, _ string, errs *joined) {
		node := "ztunnel/" + pod.Spec.NodeName
		c.page(ctx, pod, proxyAdminPort, "/config_dump", node+"/config.json", add, errs)
		c.page(ctx, pod, metricsPort, "/metrics", node+"/metrics.txt", add, errs)
	})
}

// running lists the pods that run and are wanted.
func (c *connected) running(ctx context.Context, wanted func(*corev1.Pod) bool) ([]corev1.Pod, error) {
	pods, err := c.listed(ctx)
	if len(pods) == 0 && err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool {
		return pod.Status.Phase != corev1.PodRunning || !wanted(&pod)
	}), nil
}

// read reads from pods, several at once. folder is the name that each has in the dump.
func (c *connected) read(pods []corev1.Pod, from func(pod *corev1.Pod, folder string, errs *joined)) error {
	var group errgroup.Group
	errs := &joined{}
	folders := podFolders(pods)
	for i := range pods {
		group.Go(func() error {
			from(&pods[i], strings.TrimPrefix(folders[i], "pods/"), errs)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errs.err()
}

// page reads a page of an HTTP server in a pod.
func (c *connected) page(
	ctx context.Context, pod *corev1.Pod, port int, path, file string, add dump.Add, errs *joined,
) {
	content, err := c.forwarder.Get(ctx, pod.Namespace, pod.Name, port, path)
	if err != nil {
		errs.add(err)
		return
	}
	add(file, content)
}
