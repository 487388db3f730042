package apply

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/problem"
)

// State says whether an object is ready.
type State struct {
	Ready bool
	// Failed means that the object will not become ready by itself.
	Failed bool
	// Message says why the object is not ready.
	Message string
	// Kind is the problem that the state is if it lasts; none means problem.NotReady.
	Kind problem.Kind
	// Limit is how long the state may last before it counts as failed; 0 means without limit.
	Limit time.Duration
}

// Waiting is the state of an object that may still become ready.
func Waiting(format string, args ...any) State { return State{Message: fmt.Sprintf(format, args...)} }

func failed(format string, args ...any) State {
	return State{Failed: true, Message: fmt.Sprintf(format, args...)}
}

// states maps Kubernetes' kinds whose objects are not ready as soon as they exist to what reads their status.
func states() map[schema.GroupKind]func(*unstructured.Unstructured) State {
	return map[schema.GroupKind]func(*unstructured.Unstructured) State{
		{Group: "apps", Kind: "Deployment"}:                   typed(DeploymentState),
		{Group: "apps", Kind: "DaemonSet"}:                    typed(daemonSetState),
		{Group: "apps", Kind: "StatefulSet"}:                  typed(statefulSetState),
		{Group: "", Kind: "Pod"}:                              typed(PodState),
		{Group: "", Kind: "Service"}:                          typed(ServiceState),
		{Group: "", Kind: "Namespace"}:                        typed(namespaceState),
		{Group: "", Kind: "PersistentVolumeClaim"}:            typed(claimState),
		{Group: "batch", Kind: "Job"}:                         typed(jobState),
		crdKind():                                             typed(crdState),
		{Group: "apiregistration.k8s.io", Kind: "APIService"}: apiServiceState,
	}
}

// typed makes a function of unstructured objects of one of typed objects.
func typed[T any](state func(*T) State) func(*unstructured.Unstructured) State {
	return func(obj *unstructured.Unstructured) State {
		into := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, into); err != nil {
			return Waiting("its status cannot be read: %v", err)
		}
		return state(into)
	}
}

// hasState says whether an object can exist without being ready.
func (c *Client) hasState(obj *unstructured.Unstructured) bool {
	gk := obj.GroupVersionKind().GroupKind()
	return c.options.Kinds[gk].State != nil || states()[gk] != nil || isWebhookConfiguration(gk)
}

// state says whether an object is ready that was read as live, nil where it does not exist. set are the objects of its
// part.
func (c *Client) state(ctx context.Context, obj, live *unstructured.Unstructured, set objectList) (State, error) {
	switch {
	case live == nil:
		return Waiting("it does not exist"), nil
	case live.GetDeletionTimestamp() != nil:
		return Waiting("it is being deleted%s", finalizers(live)), nil
	}
	gk := obj.GroupVersionKind().GroupKind()
	if kind := c.options.Kinds[gk]; kind.State != nil {
		return kind.State(ctx, c.api, live)
	}
	if state, ok := states()[gk]; ok {
		return state(live), nil
	}
	if isWebhookConfiguration(gk) {
		return c.webhookState(ctx, live, set)
	}
	return State{Ready: true}, nil
}

// reason says why objects that were read as live are not ready, or "" where all are. It names the first that is not, in
// the order of application, with what its pods say.
func (c *Client) reason(ctx context.Context, objs, live objectList) (string, error) {
	unready, err := c.judgeReady(ctx, objs, live, objs)
	if err != nil || len(unready) == 0 {
		return "", err
	}
	return c.explain(ctx, unready).Seen, nil
}

// unreadyObject is an object that is not ready, and its state.
type unreadyObject struct {
	obj *unstructured.Unstructured
	State
}

// unready reads objects and returns those that are not ready, in their order.
func (c *Client) unready(ctx context.Context, objs, set objectList) ([]unreadyObject, error) {
	live, err := c.fetch(ctx, objs)
	if err != nil {
		return nil, err
	}
	return c.judgeReady(ctx, objs, live, set)
}

// judgeReady returns those of objects, which were read as live, that are not ready.
func (c *Client) judgeReady(ctx context.Context, objs, live, set objectList) ([]unreadyObject, error) {
	states := make([]State, len(objs))
	err := inParallel(ctx, len(objs), func(ctx context.Context, i int) (err error) {
		states[i], err = c.state(ctx, objs[i], live[i], set)
		return err
	})
	if err != nil {
		return nil, err
	}
	var unready []unreadyObject
	for i, s := range states {
		if !s.Ready {
			unready = append(unready, unreadyObject{objs[i], s})
		}
	}
	return unready, nil
}

// explain says why objects are not ready: the first in full, the number of the others. One that has failed, or that
// will if its state lasts, comes before those that may still become ready.
func (c *Client) explain(ctx context.Context, unready []unreadyObject) *problem.Problem {
	first := unready[0]
	for _, u := range unready {
		if u.Failed || u.Limit > 0 {
			first = u
			break
		}
	}
	found := c.diagnose(ctx, first)
	found.Seen = fmt.Sprintf("%s: %s", idOf(first.obj), found.Seen)
	if more := len(unready) - 1; more > 0 {
		found.Seen += fmt.Sprintf(" (and %d more not ready)", more)
	}
	return found
}

const staleStatus = "its controller has not seen its latest change yet"

// ConditionsState is ready when every one of the conditions is True and was observed at the object's generation.
func ConditionsState(generation int64, conditions []metav1.Condition, kinds ...string) State {
	for _, kind := range kinds {
		c := meta.FindStatusCondition(conditions, kind)
		switch {
		case c == nil:
			return Waiting("its controller has not set condition %s yet", kind)
		case c.ObservedGeneration != 0 && c.ObservedGeneration < generation:
			return Waiting(staleStatus)
		case c.Status != metav1.ConditionTrue:
			return Waiting("%s is %s: %s", kind, c.Status, describe(c))
		}
	}
	return State{Ready: true}
}

func describe(c *metav1.Condition) string {
	return strings.TrimSpace(strings.TrimSuffix(c.Reason+": "+c.Message, ": "))
}

// conditionsOf reads the conditions of an object whose status has them in the form that the API conventions describe.
func conditionsOf(obj *unstructured.Unstructured) []metav1.Condition {
	var status struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	part := map[string]any{"status": obj.Object["status"]}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(part, &status); err != nil {
		return nil
	}
	return status.Status.Conditions
}

func finalizers(obj *unstructured.Unstructured) string {
	if f := obj.GetFinalizers(); len(f) > 0 {
		return ", and waits for its finalizers " + strings.Join(f, ", ")
	}
	return ""
}

// DeploymentState is ready when every replica is of the current template and available.
func DeploymentState(d *appsv1.Deployment) State {
	if d.Status.ObservedGeneration < d.Generation {
		return Waiting(staleStatus)
	}
	want := replicas(d.Spec.Replicas)
	s := d.Status
	switch {
	case s.UpdatedReplicas < want:
		return deploymentReason(d, "%d of %d replicas are of the current template", s.UpdatedReplicas, want)
	case s.Replicas > s.UpdatedReplicas:
		return Waiting("%d replicas of the former template are still being deleted", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < want:
		return deploymentReason(d, "%d of %d replicas are available", s.AvailableReplicas, want)
	default:
		return State{Ready: true}
	}
}

// deploymentReason adds the controller's message where it cannot create pods, as with an exceeded quota or a webhook
// that does not answer: there is no pod then that says why.
func deploymentReason(d *appsv1.Deployment, format string, args ...any) State {
	s := Waiting(format, args...)
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			s.Message += ": " + c.Message
		}
	}
	return s
}

// replicas reads a replica count, which is 1 where it is not set.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// daemonSetState is ready when every node that should have a pod has a current and available one.
func daemonSetState(d *appsv1.DaemonSet) State {
	if d.Status.ObservedGeneration < d.Generation {
		return Waiting(staleStatus)
	}
	s := d.Status
	want := s.DesiredNumberScheduled
	switch {
	case s.CurrentNumberScheduled < want:
		return Waiting("%d of %d nodes have its pod", s.CurrentNumberScheduled, want)
	case s.UpdatedNumberScheduled < want && d.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType:
		return Waiting("on %d of %d nodes its pod is of the current template", s.UpdatedNumberScheduled, want)
	case s.NumberAvailable < want:
		return Waiting("on %d of %d nodes its pod is available", s.NumberAvailable, want)
	default:
		return State{Ready: true}
	}
}

// statefulSetState is ready when every replica is of the current revision and ready.
func statefulSetState(s *appsv1.StatefulSet) State {
	if s.Status.ObservedGeneration < s.Generation {
		return Waiting(staleStatus)
	}
	want := replicas(s.Spec.Replicas)
	onDelete := s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
	switch {
	case s.Status.ReadyReplicas < want:
		return Waiting("%d of %d replicas are ready", s.Status.ReadyReplicas, want)
	case !onDelete && s.Status.UpdateRevision != s.Status.CurrentRevision && s.Status.UpdatedReplicas < want:
		return Waiting("%d of %d replicas are of the current template", s.Status.UpdatedReplicas, want)
	default:
		return State{Ready: true}
	}
}

// PodState is ready when a pod is Ready or has succeeded.
func PodState(p *corev1.Pod) State {
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		return State{Ready: true}
	case corev1.PodFailed:
		return failed("it failed%s", podFailure(p))
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return State{Ready: true}
		}
	}
	return Waiting("it is %s", cmp.Or(string(p.Status.Phase), "not seen by a kubelet yet"))
}

func podFailure(p *corev1.Pod) string {
	if p.Status.Reason != "" || p.Status.Message != "" {
		return ": " + p.Status.Reason + " " + p.Status.Message
	}
	return ""
}

// jobState is ready when a Job is complete; one that has failed will not become so.
func jobState(j *batchv1.Job) State {
	for _, c := range j.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobSuccessCriteriaMet:
			return State{Ready: true}
		case batchv1.JobFailed:
			return failed("it failed: %s: %s", c.Reason, c.Message)
		case batchv1.JobSuspended:
			return Waiting("it is suspended")
		}
	}
	return Waiting("%d pods run, %d succeeded, %d failed", j.Status.Active, j.Status.Succeeded, j.Status.Failed)
}

// ServiceState is ready when a Service of type LoadBalancer has an address. Other Services are ready at once: whether
// they have endpoints depends on their pods.
func ServiceState(s *corev1.Service) State {
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return State{Ready: true}
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IP != "" || ingress.Hostname != "" {
			return State{Ready: true}
		}
	}
	return Waiting("no load balancer has given it an address")
}

// namespaceState is ready when a namespace is not being deleted.
func namespaceState(n *corev1.Namespace) State {
	if n.Status.Phase == corev1.NamespaceTerminating {
		return Waiting("it is being deleted")
	}
	return State{Ready: true}
}

// claimState is ready unless the volume is lost. A claim whose class waits for a first consumer is bound by its pod.
func claimState(p *corev1.PersistentVolumeClaim) State {
	if p.Status.Phase == corev1.ClaimLost {
		return failed("its volume is lost")
	}
	return State{Ready: true}
}

// crdState is ready when a CRD's names are accepted and its kind is served.
func crdState(crd *apiextensionsv1.CustomResourceDefinition) State {
	established := false
	for _, c := range crd.Status.Conditions {
		switch {
		case c.Type == apiextensionsv1.NamesAccepted && c.Status == apiextensionsv1.ConditionFalse:
			return failed("its names are taken: %s: %s", c.Reason, c.Message)
		case c.Type == apiextensionsv1.Established:
			established = c.Status == apiextensionsv1.ConditionTrue
		}
	}
	if !established {
		return Waiting("the API server does not serve it yet")
	}
	return State{Ready: true}
}

// apiServiceState is ready when an aggregated API answers.
func apiServiceState(obj *unstructured.Unstructured) State {
	return ConditionsState(obj.GetGeneration(), conditionsOf(obj), "Available")
}

func isWebhookConfiguration(gk schema.GroupKind) bool {
	return gk.Group == admissionGroup && strings.HasSuffix(gk.Kind, "WebhookConfiguration")
}

// webhookState is ready when the server of every webhook has an endpoint and has written its certificate authority into
// the configuration.
//
// A webhook whose Service is of another part is not waited for: that part may come later. Istio's base chart, for one,
// holds the webhook of istiod, which another chart installs.
func (c *Client) webhookState(ctx context.Context, live *unstructured.Unstructured, set objectList) (State, error) {
	hooks, _, _ := unstructured.NestedSlice(live.Object, "webhooks")
	for _, h := range hooks {
		hook, _ := h.(map[string]any)
		name, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "name")
		namespace, _, _ := unstructured.NestedString(hook, "clientConfig", "service", "namespace")
		if name == "" || !holdsService(set, namespace, name) {
			continue
		}
		if ca, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle"); ca == "" {
			return Waiting("webhook %v: its server has not written its certificate authority yet", hook["name"]), nil
		}
		ready, err := HasReadyPod(ctx, c.api, namespace, name)
		if err != nil {
			return State{}, err
		}
		if !ready {
			return Waiting("webhook %v: no pod of Service %s/%s is ready", hook["name"], namespace, name), nil
		}
	}
	return State{Ready: true}, nil
}

func holdsService(set objectList, namespace, name string) bool {
	for _, obj := range set {
		if obj.GetKind() == "Service" && obj.GetNamespace() == namespace && obj.GetName() == name {
			return true
		}
	}
	return false
}

// HasReadyPod says whether a Service has a ready endpoint.
func HasReadyPod(ctx context.Context, api client.Reader, namespace, service string) (bool, error) {
	list := &discoveryv1.EndpointSliceList{}
	labels := client.MatchingLabels{discoveryv1.LabelServiceName: service}
	if err := api.List(ctx, list, client.InNamespace(namespace), labels); err != nil {
		return false, fmt.Errorf("listing the endpoints of Service %s/%s: %w", namespace, service, err)
	}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			// A condition that is not set means ready (k8s.io/api/discovery/v1, EndpointConditions).
			if len(e.Addresses) > 0 && (e.Conditions.Ready == nil || *e.Conditions.Ready) {
				return true, nil
			}
		}
	}
	return false, nil
}
