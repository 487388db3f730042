package traffic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	utilexec "k8s.io/client-go/util/exec"
)

var spec = PodSpec{
	Namespace: "default", Name: "lab-outsider", ServiceAccount: "outsider", Image: "fortio",
	Labels: map[string]string{"istio.io/dataplane-mode": "none"},
}

func readyPod(name string, ours bool) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: "u-1",
			Labels: map[string]string{"app": "x"},
		},
		Status: corev1.PodStatus{
			PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			ContainerStatuses: []corev1.ContainerStatus{{RestartCount: 2}, {RestartCount: 1}},
		},
	}
	if ours {
		pod.Labels[managedByLabel] = managedBy
	}
	return pod
}

func TestPodsAreDescribed(t *testing.T) {
	now := metav1.Now()
	leaving := readyPod("a-leaving", false)
	leaving.DeletionTimestamp, leaving.Finalizers = &now, []string{"x/y"}
	k := &Kube{client: fake.NewClientset(readyPod("b", false), readyPod("a", false), leaving)}
	pods, err := k.Pods(t.Context(), "default", "app=x")
	if err != nil || len(pods) != 2 || pods[0].Name != "a" || !pods[0].Ready || pods[0].Incarnation() != "a/u-1/3" ||
		pods[0].IP != "10.0.0.1" {
		t.Errorf("%+v %v", pods, err)
	}
}

// A pod that becomes ready only after a while is waited for with a watch.
func TestStartPodWaitsUntilReady(t *testing.T) {
	client := fake.NewClientset()
	watching := watch.NewFake()
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		go func() {
			waiting := readyPod(spec.Name, true)
			waiting.Status.Conditions = nil
			watching.Modify(waiting)
			watching.Modify(readyPod(spec.Name, true))
		}()
		return true, watching, nil
	})
	k := &Kube{client: client}
	pod, err := k.StartPod(t.Context(), spec)
	if err != nil || !pod.Ready {
		t.Fatalf("%+v %v", pod, err)
	}
	made, err := client.CoreV1().Pods("default").Get(t.Context(), spec.Name, metav1.GetOptions{})
	if err != nil || made.Spec.ServiceAccountName != "outsider" || made.Labels["istio.io/dataplane-mode"] != "none" ||
		made.Labels[CallerLabel] != spec.Name || made.Spec.Containers[0].Name != Container {
		t.Errorf("%+v %v", made, err)
	}
	if err := k.RemovePod(t.Context(), "default", spec.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().ServiceAccounts("default").
		Get(t.Context(), "outsider", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the service account is still there: %v", err)
	}
	if err := k.RemovePod(t.Context(), "default", spec.Name); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
}

func TestStartPodReplacesItsOwnAndNoOther(t *testing.T) {
	client := fake.NewClientset(readyPod(spec.Name, true))
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		action.(clienttesting.CreateAction).GetObject().(*corev1.Pod).Status = readyPod("x", true).Status
		return false, nil, nil
	})
	k := &Kube{client: client}
	if pod, err := k.StartPod(t.Context(), spec); err != nil || !pod.Ready {
		t.Errorf("%+v %v", pod, err)
	}
	k = &Kube{client: fake.NewClientset(readyPod(spec.Name, false))}
	if _, err := k.StartPod(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "not the lab's") {
		t.Errorf("a pod of another user: %v", err)
	}
}

func TestStartPodSaysWhatItWaitedFor(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "pods", func(action clienttesting.Action) (bool, runtime.Object, error) {
		pod := action.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: Container, State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "no such image"},
			},
		}}
		return false, nil, nil
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, errors.New("not ready in time"))
	defer cancel()
	client.PrependWatchReactor("pods", func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFake()
		context.AfterFunc(ctx, w.Stop)
		return true, w, nil
	})
	_, err := (&Kube{client: client}).StartPod(ctx, spec)
	if err == nil || !strings.Contains(err.Error(), "not ready in time") ||
		!strings.Contains(err.Error(), "ImagePullBackOff no such image") {
		t.Errorf("error %v", err)
	}
	for _, verb := range []string{"get", "create", "list"} {
		client := fake.NewClientset()
		client.PrependReactor(verb, "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", nil)
		})
		if _, err := (&Kube{client: client}).StartPod(t.Context(), spec); !apierrors.IsForbidden(err) {
			t.Errorf("%s forbidden: %v", verb, err)
		}
	}
}

func TestReasons(t *testing.T) {
	pod := readyPod("a", true)
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"},
	}
	for want, p := range map[string]*corev1.Pod{
		"no such pod": nil, "0/3 nodes are available": pod,
		"phase Pending": {Status: corev1.PodStatus{Phase: corev1.PodPending}},
	} {
		if got := reason(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What ends an exec decides whether its output is evidence.
func TestExitStatus(t *testing.T) {
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("Ctrl-C"))
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", nil)
	for _, c := range []struct {
		ctx    context.Context
		err    error
		status int
		lost   bool
		want   string
	}{
		{t.Context(), nil, 0, false, ""},
		{t.Context(), utilexec.CodeExitError{Err: errors.New("x"), Code: 3}, 3, false, ""},
		{t.Context(), fmt.Errorf("wrapped: %w", utilexec.CodeExitError{Err: errors.New("x"), Code: 1}), 1, false, ""},
		{t.Context(), errors.New("websocket: close 1006"), 0, true, "1006"},
		{t.Context(), refused, 0, false, "forbidden"},
		{ended, errors.New("closed"), 0, false, "Ctrl-C"},
	} {
		status, err := exitStatus(c.ctx, c.err)
		if status != c.status || errors.Is(err, ErrStatusLost) != c.lost || (c.want == "") != (err == nil) ||
			(err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %d %v", c.err, status, err)
		}
	}
}

func TestExecWithoutAServer(t *testing.T) {
	k, err := NewKube(&rest.Config{Host: "127.0.0.1:1"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Exec(t.Context(), "default", "p", "c", []string{"true"}, nil, nil); err == nil {
		t.Error("exec without a server went well")
	}
	if err := k.Attach(t.Context(), "default", "p", "c", nil); err == nil {
		t.Error("attach without a server went well")
	}
	if _, err := k.Logs(t.Context(), "default", "p", "c", time.Now()); err == nil {
		t.Error("a log without a server")
	}
	if _, err := NewKube(&rest.Config{Host: "::bad::"}, nil); err == nil {
		t.Error("a bad host went well")
	}
}
