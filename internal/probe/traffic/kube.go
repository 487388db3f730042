package traffic

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// Forwarder forwards local ports to pods.
type Forwarder interface {
	PodPort(ctx context.Context, namespace, pod string, port int) (address string, stop func(), err error)
}

// Labels of everything that is made here and removed again.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "ambientlab"
	// CallerLabel names the short-lived caller that a pod or service account belongs to.
	CallerLabel = "lab.opssec.in/caller"
)

// Kube is the Cluster of a kubeconfig.
type Kube struct {
	Forwarder
	config *rest.Config
	client kubernetes.Interface
}

// NewKube returns the Cluster behind config; port-forwards are the forwarder's.
func NewKube(config *rest.Config, forwarder Forwarder) (*Kube, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", config.Host, err)
	}
	return &Kube{Forwarder: forwarder, config: config, client: client}, nil
}

// Pods implements Cluster.
func (k *Kube) Pods(ctx context.Context, namespace, selector string) ([]Pod, error) {
	list, err := k.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	var pods []Pod
	for i := range list.Items {
		if list.Items[i].DeletionTimestamp == nil {
			pods = append(pods, describe(&list.Items[i]))
		}
	}
	slices.SortFunc(pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods, nil
}

func describe(pod *corev1.Pod) Pod {
	described := Pod{
		Name: pod.Name, UID: string(pod.UID), IP: pod.Status.PodIP, Node: pod.Spec.NodeName,
		ServiceAccount: pod.Spec.ServiceAccountName, Labels: pod.Labels, Annotations: pod.Annotations,
	}
	for _, c := range pod.Status.ContainerStatuses {
		described.Restarts += int(c.RestartCount)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			described.Ready = true
		}
	}
	return described
}

// Exec implements Cluster.
func (k *Kube) Exec(
	ctx context.Context, namespace, pod, container string, command []string, stdout, stderr io.Writer,
) (int, error) {
	executor, err := k.executor(namespace, pod, "exec",
		&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true})
	if err != nil {
		return 0, err
	}
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: stdout, Stderr: stderr})
	return exitStatus(ctx, err)
}

// Attach implements Cluster.
func (k *Kube) Attach(ctx context.Context, namespace, pod, container string, stdout io.Writer) error {
	executor, err := k.executor(namespace, pod, "attach", &corev1.PodAttachOptions{Container: container, Stdout: true})
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: stdout})
}

// executor opens streams to a container over WebSocket, and over SPDY where the API server or a proxy does not support
// that.
func (k *Kube) executor(namespace, pod, subresource string, options runtime.Object) (remotecommand.Executor, error) {
	url := k.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pod).
		SubResource(subresource).VersionedParams(options, scheme.ParameterCodec).URL()
	socket, err := remotecommand.NewWebSocketExecutor(k.config, "GET", url.String())
	if err != nil {
		return nil, fmt.Errorf("preparing to %s in %s: %w", subresource, pod, err)
	}
	spdy, err := remotecommand.NewSPDYExecutor(k.config, "POST", url)
	if err != nil {
		return nil, fmt.Errorf("preparing to %s in %s: %w", subresource, pod, err)
	}
	executor, err := remotecommand.NewFallbackExecutor(socket, spdy, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	})
	if err != nil {
		return nil, fmt.Errorf("preparing to %s in %s: %w", subresource, pod, err)
	}
	return executor, nil
}

// exitStatus tells a command that failed from a connection that broke. Whatever breaks once the stream is open (an API
// server that restarts, a node that goes away) leaves the command's end unknown; a refusal by the API server does not.
func exitStatus(ctx context.Context, err error) (int, error) {
	var exit utilexec.CodeExitError
	var refused *apierrors.StatusError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.Code, nil
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.As(err, &refused):
		return 0, err
	}
	return 0, fmt.Errorf("%w: %w", ErrStatusLost, err)
}

// Logs implements Cluster.
func (k *Kube) Logs(ctx context.Context, namespace, pod, container string, since time.Time) (io.ReadCloser, error) {
	// The API's resolution is a second, so the log is asked for from a second earlier.
	from := metav1.NewTime(since.Add(-time.Second))
	return k.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{
		Container: container, Follow: true, SinceTime: &from,
	}).Stream(ctx)
}

// StartPod implements Cluster. A pod of that name left by a run that was killed is replaced.
func (k *Kube) StartPod(ctx context.Context, spec PodSpec) (Pod, error) {
	if err := k.serviceAccount(ctx, spec); err != nil {
		return Pod{}, err
	}
	if err := k.gone(ctx, spec.Namespace, spec.Name); err != nil {
		return Pod{}, err
	}
	labels := map[string]string{managedByLabel: managedBy, CallerLabel: spec.Name, "app": spec.Name}
	for key, value := range spec.Labels {
		labels[key] = value
	}
	no, grace := false, int64(0)
	created, err := k.client.CoreV1().Pods(spec.Namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: spec.Name, Labels: labels},
		Spec: corev1.PodSpec{
			ServiceAccountName: spec.ServiceAccount, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			TerminationGracePeriodSeconds: &grace, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{
				Name: Container, Image: spec.Image, ImagePullPolicy: corev1.PullIfNotPresent, Args: idleArgs,
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return Pod{}, fmt.Errorf("creating pod %s: %w", spec.Name, err)
	}
	ready, err := k.await(ctx, spec.Namespace, created.Name,
		func(p *corev1.Pod) bool { return p != nil && describe(p).Ready })
	if err != nil {
		return Pod{}, fmt.Errorf("waiting for pod %s: %w", spec.Name, err)
	}
	return describe(ready), nil
}

func (k *Kube) serviceAccount(ctx context.Context, spec PodSpec) error {
	_, err := k.client.CoreV1().ServiceAccounts(spec.Namespace).Create(ctx, &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Name:   spec.ServiceAccount,
			Labels: map[string]string{managedByLabel: managedBy, CallerLabel: spec.Name},
		},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating service account %s: %w", spec.ServiceAccount, err)
	}
	return nil
}

// gone deletes a pod of ours and waits until its name is free.
func (k *Kube) gone(ctx context.Context, namespace, name string) error {
	pod, err := k.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking for pod %s: %w", name, err)
	}
	if pod.Labels[managedByLabel] != managedBy {
		return fmt.Errorf("a pod named %s exists in %s and is not the lab's", name, namespace)
	}
	if err := k.RemovePod(ctx, namespace, name); err != nil {
		return err
	}
	if _, err := k.await(ctx, namespace, name, func(p *corev1.Pod) bool { return p == nil }); err != nil {
		return fmt.Errorf("waiting until the old pod %s is deleted: %w", name, err)
	}
	return nil
}

// RemovePod implements Cluster. The service account goes with its pod, if it was made for it.
func (k *Kube) RemovePod(ctx context.Context, namespace, name string) error {
	grace := int64(0)
	var errs []error
	if err := k.client.CoreV1().Pods(namespace).
		Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil && !apierrors.IsNotFound(err) {
		errs = append(errs, fmt.Errorf("deleting pod %s: %w", name, err))
	}
	accounts, err := k.client.CoreV1().ServiceAccounts(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: CallerLabel + "=" + name})
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("listing the service accounts of %s: %w", name, err))...)
	}
	for _, account := range accounts.Items {
		err := k.client.CoreV1().ServiceAccounts(namespace).Delete(ctx, account.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("deleting service account %s: %w", account.Name, err))
		}
	}
	return errors.Join(errs...)
}

// await watches one pod until it is as wanted; nil means that there is no such pod. A watch that ends is started again,
// with a fresh look first, so nothing is missed.
func (k *Kube) await(ctx context.Context, namespace, name string, wanted func(*corev1.Pod) bool) (*corev1.Pod, error) {
	only := fields.OneTermEqualSelector("metadata.name", name).String()
	state := "not seen yet"
	for {
		list, err := k.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: only})
		if err != nil {
			return nil, because(ctx, err, state)
		}
		var pod *corev1.Pod
		if len(list.Items) > 0 {
			pod = &list.Items[0]
		}
		if wanted(pod) {
			return pod, nil
		}
		state = reason(pod)
		changes, err := k.client.CoreV1().Pods(namespace).
			Watch(ctx, metav1.ListOptions{FieldSelector: only, ResourceVersion: list.ResourceVersion})
		if err != nil {
			return nil, because(ctx, err, state)
		}
		pod, found := follow(changes, &state, wanted)
		if found {
			return pod, nil
		}
		if ctx.Err() != nil {
			return nil, because(ctx, ctx.Err(), state)
		}
	}
}

func follow(changes watch.Interface, state *string, wanted func(*corev1.Pod) bool) (*corev1.Pod, bool) {
	defer changes.Stop()
	for event := range changes.ResultChan() {
		pod, isPod := event.Object.(*corev1.Pod)
		if !isPod {
			return nil, false
		}
		if event.Type == watch.Deleted {
			pod = nil
		}
		if wanted(pod) {
			return pod, true
		}
		*state = reason(pod)
	}
	return nil, false
}

func because(ctx context.Context, err error, state string) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%w (last seen: %s)", err, state)
}

// reason says in Kubernetes' words why a pod is not ready.
func reason(pod *corev1.Pod) string {
	if pod == nil {
		return "no such pod"
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			return fmt.Sprintf("container %s: %s %s", c.Name, w.Reason, w.Message)
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Status != corev1.ConditionTrue && c.Message != "" {
			return c.Message
		}
	}
	return "phase " + string(pod.Status.Phase)
}
