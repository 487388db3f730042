package apply

import (
	"context"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"ambientlab/internal/problem"
)

// diagnose says why an object is not ready: what its status says, and what its pods or the warnings about it add. What
// cannot be read is left out: the reason from the status is worth more than the error of looking for a better one.
func (c *Client) diagnose(ctx context.Context, u unreadyObject) *problem.Problem {
	kind := problem.NotReady
	if u.Kind.ID != "" {
		kind = u.Kind
	}
	pods := ReadPods(ctx, c.kube, u.obj.GetNamespace(), c.podsOf(ctx, u.obj))
	pods.Causes = c.options.Causes
	if found := pods.Trouble(); found != nil {
		found.Seen = u.Message + ": " + found.Seen
		return found
	}
	text := u.Message
	if warning := latestWarning(pods.Warnings, u.obj.GetKind(), u.obj.GetName()); warning != "" {
		text += ": " + warning
	}
	return problem.New(kind, nil, "%s", text)
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
		labels, _, _ := unstructured.NestedStringMap(obj.Object, "spec", "selector", "matchLabels")
		if len(labels) > 0 {
			selector = metav1.FormatLabelSelector(metav1.SetAsLabelSelector(labels))
		}
	case "Job":
		selector = "batch.kubernetes.io/job-name=" + obj.GetName()
	}
	if kind := c.options.Kinds[obj.GroupVersionKind().GroupKind()]; kind.Pods != nil {
		selector = kind.Pods(obj)
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

// ReadPods adds to pods what Pods.Trouble needs to know of them. Logs are read when they are first asked for.
func ReadPods(ctx context.Context, kube kubernetes.Interface, namespace string, pods []corev1.Pod) Pods {
	found := Pods{Items: pods, Log: func(pod, container string, previous bool) string {
		return lastLines(ctx, kube, namespace, pod, container, previous)
	}}
	warnings := fields.OneTermEqualSelector("type", corev1.EventTypeWarning).String()
	if list, err := kube.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: warnings}); err == nil {
		found.Warnings = list.Items
	}
	return found
}

// logTail and logBytes limit what is read of a log to find its last lines; logLines is how many of them are quoted: the
// last one is often a supervisor's "exited with status 1", and the one before it the reason.
const (
	logTail  = 20
	logBytes = 16 << 10
	logLines = 2
)

// lastLines gives the last lines of a container's log that are not blank.
func lastLines(ctx context.Context, kube kubernetes.Interface, namespace, pod, container string, previous bool) string {
	stream, err := kube.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: container, Previous: previous, TailLines: ptr.To[int64](logTail),
		LimitBytes: ptr.To[int64](logBytes),
	}).Stream(ctx)
	if err != nil {
		return ""
	}
	defer stream.Close()
	data, err := io.ReadAll(io.LimitReader(stream, logBytes))
	if err != nil {
		return ""
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if text := oneLine(line); text != "" {
			lines = append(lines, text)
		}
	}
	return strings.Join(lines[max(0, len(lines)-logLines):], " | ")
}
