package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/problem"
)

// diagnosis is why something is not ready, and which problem that is.
type diagnosis struct {
	kind problem.Kind
	text string
}

// diagnose asks further than an object's status: its pods, their containers' last
// words, and the warnings about them. What cannot be asked is left out: the reason at
// hand is worth more than the error of looking for a better one.
func (c *Client) diagnose(ctx context.Context, u unready) diagnosis {
	d := diagnosis{problem.NotReady, u.message}
	if u.kind.ID != "" {
		d.kind = u.kind
	}
	pods := c.podsOf(ctx, u.obj)
	if found, ok := c.worst(ctx, pods); ok {
		return diagnosis{found.kind, u.message + ": " + found.text}
	}
	if event := c.warning(ctx, u.obj.GetNamespace(), u.obj.GetKind(), u.obj.GetName()); event != "" {
		d.text += ": " + event
	}
	return d
}

// podsOf lists the pods that belong to an object.
func (c *Client) podsOf(ctx context.Context, obj *unstructured.Unstructured) []corev1.Pod {
	var selector string
	switch obj.GetKind() {
	case "Pod":
		pod, err := c.kube.CoreV1().Pods(obj.GetNamespace()).Get(ctx, obj.GetName(), metav1.GetOptions{})
		if err != nil {
			return nil
		}
		return []corev1.Pod{*pod}
	case "Deployment", "DaemonSet", "StatefulSet":
		raw, _, _ := unstructured.NestedMap(obj.Object, "spec", "selector")
		selector = selectorOf(raw)
	case "Job":
		selector = "batch.kubernetes.io/job-name=" + obj.GetName()
	case "Gateway":
		if obj.GroupVersionKind().Group == gatewayGroup {
			selector = labelGatewayName + "=" + obj.GetName()
		}
	}
	if selector == "" {
		return nil
	}
	list, err := c.kube.CoreV1().Pods(obj.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil
	}
	return list.Items
}

func selectorOf(raw map[string]any) string {
	var parts []string
	labels, _, _ := unstructured.NestedStringMap(raw, "matchLabels")
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// worst gives the reason of the pod that says most: of those that are not ready, one
// with a known problem before one that is merely on its way, the newest first, since
// older ones may be of a template that was replaced.
func (c *Client) worst(ctx context.Context, pods []corev1.Pod) (diagnosis, bool) {
	slices.SortFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Or(b.CreationTimestamp.Compare(a.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	var fallback *diagnosis
	for i := range pods {
		pod := &pods[i]
		if podState(pod).done || pod.DeletionTimestamp != nil {
			continue
		}
		d := c.podDiagnosis(ctx, pod)
		d.text = podName(pod) + " " + d.text
		if d.kind.ID != problem.NotReady.ID {
			return d, true
		}
		if fallback == nil {
			fallback = &d
		}
	}
	if fallback == nil {
		return diagnosis{}, false
	}
	return *fallback, true
}

func podName(pod *corev1.Pod) string {
	if pod.Spec.NodeName == "" {
		return "pod " + pod.Name
	}
	return fmt.Sprintf("pod %s on node %s", pod.Name, pod.Spec.NodeName)
}

// podDiagnosis says why a pod is not ready.
func (c *Client) podDiagnosis(ctx context.Context, pod *corev1.Pod) diagnosis {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return diagnosis{problem.Unschedulable, "cannot be scheduled: " + condition.Message}
		}
	}
	if pod.Status.Phase == corev1.PodFailed {
		return diagnosis{problem.NotReady, "failed" + podFailure(pod)}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if d, ok := c.containerDiagnosis(ctx, pod, s); ok {
			return d
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		// A server that ended well has ended all the same: Istio's pilot-agent exits
		// with 0 when its Envoy cannot start.
		if s.State.Terminated != nil && cmp.Or(pod.Spec.RestartPolicy, corev1.RestartPolicyAlways) == corev1.RestartPolicyAlways {
			return diagnosis{problem.CrashLoop, c.lastWords(ctx, pod, s)}
		}
	}
	d := diagnosis{problem.NotReady, "is " + cmp.Or(string(pod.Status.Phase), "not seen by a kubelet yet")}
	if event := c.warning(ctx, pod.Namespace, "Pod", pod.Name); event != "" {
		d.text += ": " + event
		if noZtunnel(event) {
			d.kind = problem.ZtunnelDown
		}
	}
	return d
}

// containerDiagnosis says what is wrong with a container, if something is.
func (c *Client) containerDiagnosis(ctx context.Context, pod *corev1.Pod, s corev1.ContainerStatus) (diagnosis, bool) {
	if w := s.State.Waiting; w != nil {
		text := strings.TrimSuffix(fmt.Sprintf("waits: container %s: %s: %s", s.Name, w.Reason, w.Message), ": ")
		switch w.Reason {
		case "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
			return diagnosis{problem.ImagePull, fmt.Sprintf("cannot get image %s: %s: %s", s.Image, w.Reason, c.pullError(ctx, pod, w))}, true
		case "CrashLoopBackOff", "RunContainerError", "StartError":
			return diagnosis{problem.CrashLoop, c.lastWords(ctx, pod, s)}, true
		case "ContainerCreating", "PodInitializing", "":
			return diagnosis{}, false // the events know more
		default:
			return diagnosis{problem.NotReady, text}, true
		}
	}
	if t := s.State.Terminated; t != nil && t.ExitCode != 0 {
		return diagnosis{problem.CrashLoop, c.lastWords(ctx, pod, s)}, true
	}
	if s.State.Running != nil && !s.Ready && s.RestartCount > 0 && s.LastTerminationState.Terminated != nil {
		return diagnosis{problem.CrashLoop, c.lastWords(ctx, pod, s)}, true
	}
	return diagnosis{}, false
}

// pullError finds the registry's own words. While the kubelet backs off, the status
// only says that it does; the attempt before is in the events.
func (c *Client) pullError(ctx context.Context, pod *corev1.Pod, w *corev1.ContainerStateWaiting) string {
	if w.Reason != "ImagePullBackOff" || strings.Contains(w.Message, "failed") {
		return w.Message
	}
	for _, event := range c.warnings(ctx, pod.Namespace, "Pod", pod.Name) {
		if event.Reason == "Failed" && strings.Contains(event.Message, "pull") {
			return oneLine(event.Message)
		}
	}
	return w.Message
}

// noZtunnel tells the one reason why no pod of an ambient namespace can start on a
// node: istio-cni refuses to set up a pod's network while the node's ztunnel is not
// connected to it. The event is the sandbox's, and looks like a network plug-in's
// failure to who does not know the words.
func noZtunnel(event string) bool { return strings.Contains(event, "no ztunnel connection") }
