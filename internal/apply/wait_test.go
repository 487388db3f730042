package apply

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	kubefake "k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ambientlab/internal/problem"
)

const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {selector: {matchLabels: {app: " +
	"a}}}\n"

// live is a client of a small cluster without controllers.
func live(t *testing.T, funcs interceptor.Funcs, known ...client.Object) *Client {
	t.Helper()
	c := offline()
	// A scheme of its own: the fake client adds the kinds of custom resources that it is given.
	kinds := runtime.NewScheme()
	if err := scheme.AddToScheme(kinds); err != nil {
		t.Fatal(err)
	}
	c.api = interceptor.NewClient(fake.NewClientBuilder().WithScheme(kinds).WithRESTMapper(c.mapper).
		WithObjects(known...).
		WithStatusSubresource(&appsv1.Deployment{}).Build(), funcs)
	c.kube = kubefake.NewClientset()
	return c
}

func newDeployment() *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", Generation: 1}}
}

func makeAvailable(t *testing.T, c *Client) {
	t.Helper()
	d := newDeployment()
	if err := c.Client().Get(t.Context(), client.ObjectKeyFromObject(d), d); err != nil {
		t.Fatal(err)
	}
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1,
		AvailableReplicas: 1,
	}
	if err := c.Client().Status().Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}

func TestWaitLooksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watches := 0
		c := live(t, interceptor.Funcs{
			Watch: func(
				ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption,
			) (watch.Interface, error) {
				watches++
				return c.Watch(ctx, l, o...)
			},
		}, newDeployment())
		makeAvailable(t, c)
		start := time.Now()
		if err := c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, deployment)}); err != nil {
			t.Fatal(err)
		}
		if watches > 0 || time.Since(start) > 0 {
			t.Errorf("%d watches, %v", watches, time.Since(start))
		}
	})
}

func TestWaitEndsWithTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := live(t, interceptor.Funcs{}, newDeployment())
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, deployment)}) }()
		if err := sleep(t.Context(), 777*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		makeAvailable(t, c)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(start); waited != 777*time.Millisecond {
			t.Errorf("ready after 777ms, and seen after %v", waited)
		}
	})
}

func TestWaitSurvivesBrokenWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int32
		c := live(t, interceptor.Funcs{
			Watch: func(
				ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption,
			) (watch.Interface, error) {
				switch tries.Add(1) {
				case 1:
					return nil, errors.New("connection reset by peer")
				case 2:
					w := watch.NewFake()
					w.Stop() // the server ended it
					return w, nil
				default:
					return c.Watch(ctx, l, o...)
				}
			},
		}, newDeployment())
		done := make(chan error, 1)
		go func() { done <- c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, deployment)}) }()
		if err := sleep(t.Context(), 3*time.Second); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		makeAvailable(t, c)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if late := time.Since(start); late > 0 || tries.Load() != 3 {
			t.Errorf("%v late, %d watches", late, tries.Load())
		}
	})
}

func TestWaitNamesTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := live(t, interceptor.Funcs{}, newDeployment())
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a-1", Namespace: "default", Labels: map[string]string{"app": "a"}},
			Spec:       corev1.PodSpec{NodeName: "worker"},
			Status: corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
				Name: "c", Image: "nowhere.test/a:1",
				State: corev1.ContainerState{
					Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "no such host"},
				},
			}}},
		}
		c.kube = kubefake.NewClientset(pod)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := c.Wait(ctx, Set{Name: "p", Objects: objects(t, deployment)})
		if !problem.Is(err, problem.ImagePull) || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "Deployment default/a:") ||
			!strings.Contains(err.Error(),
				"pod a-1 on node worker cannot get image nowhere.test/a:1: ErrImagePull: no such host") {
			t.Errorf("got %v", err)
		}
		if time.Since(start) != time.Minute {
			t.Errorf("after %v", time.Since(start))
		}
	})
}

// A pod that fails for the same reason for minutes ends the wait long before its deadline.
func TestWaitEndsEarlyForAPodThatKeepsFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := live(t, interceptor.Funcs{}, newDeployment())
		c.kube = kubefake.NewClientset(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a-1", Namespace: "default", Labels: map[string]string{"app": "a"}},
			Status: corev1.PodStatus{Conditions: []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes: Insufficient memory",
			}}},
		})
		start := time.Now()
		err := c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, deployment)})
		if !problem.Is(err, problem.Unschedulable) || !strings.Contains(err.Error(), "Insufficient memory") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took < failingLimit || took > failingLimit+2*pollEvery {
			t.Errorf("it ended after %s", took)
		}
	})
}

func TestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f Failing
		pull := problem.New(problem.ImagePull, nil, "x")
		for _, step := range []struct {
			pause time.Duration
			found *problem.Problem
			want  bool
		}{
			{0, pull, false},
			{failingLimit - time.Second, pull, false},
			{0, problem.New(problem.CrashLoop, nil, "x"), false}, // another trouble counts from its own beginning
			{failingLimit - time.Second, nil, false},
			{0, pull, false},
			{failingLimit - time.Second, pull, false},
			{time.Second, pull, true},
			{0, problem.New(problem.NotReady, nil, "x"), false},
			{failingLimit, problem.New(problem.NotReady, nil, "x"), false},
		} {
			time.Sleep(step.pause) // of synctest's fake time
			if got := f.TooLong(step.found); got != step.want {
				t.Errorf("%v: %t", step, got)
			}
		}
	})
}

// A wait that is cancelled, by Ctrl-C or because another step failed, returns at once with the cause of the
// cancellation, and not with a problem of the objects.
func TestWaitReturnsWhenCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := live(t, interceptor.Funcs{}, newDeployment())
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second+time.Millisecond, func() { cancel(errors.New("interrupted by the user")) })
		start := time.Now()
		err := c.Wait(ctx, Set{Name: "p", Objects: objects(t, deployment)})
		if err == nil || len(problem.All(err)) > 0 || !strings.Contains(err.Error(), "interrupted by the user") {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != time.Second+time.Millisecond {
			t.Errorf("after %v", waited)
		}
	})
}

func TestWaitEndsEarlyForWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"},
			Status: corev1.PodStatus{
				Phase: corev1.PodFailed, Reason: "Evicted",
				Message: "The node was low on memory.",
			},
		}
		c := live(t, interceptor.Funcs{}, pod, newDeployment())
		set := Set{Name: "p", Objects: objects(t, deployment+"---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n")}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := c.Wait(ctx, set)
		if !problem.Is(err, problem.NotReady) || !strings.Contains(err.Error(), "Pod default/a: it failed: Evicted") {
			t.Errorf("got %v", err)
		}
		if time.Since(start) > 0 {
			t.Errorf("after %v", time.Since(start))
		}
		reason, err := c.Ready(t.Context(), set)
		if err != nil || !strings.HasPrefix(reason, "Pod default/a: it failed") ||
			!strings.HasSuffix(reason, "(and 1 more not ready)") {
			t.Errorf("ready: %q %v", reason, err)
		}
	})
}

func TestReadyOfWhatIsNotThere(t *testing.T) {
	c := live(t, interceptor.Funcs{})
	reason, err := c.Ready(t.Context(), Set{Name: "p", Objects: objects(t, deployment)})
	if err != nil || reason != "Deployment default/a: it does not exist" {
		t.Errorf("%q %v", reason, err)
	}
	makeIt := newDeployment()
	if err := c.Client().Create(t.Context(), makeIt); err != nil {
		t.Fatal(err)
	}
	makeAvailable(t, c)
	if reason, err := c.Ready(t.Context(), Set{Name: "p", Objects: objects(t, deployment)}); err != nil ||
		reason != "" {
		t.Errorf("%q %v", reason, err)
	}
}

// A state that may not last ends the wait long before its deadline, with the problem that it is; one that passes in
// time does not.
func TestWaitLimitsAState(t *testing.T) {
	const limit = 15 * time.Second
	kind := problem.GatewayOverlooked
	for name, passes := range map[string]bool{"for good": false, "for a while": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := live(t, interceptor.Funcs{}, newDeployment())
				start := time.Now()
				c.options.Kinds = map[schema.GroupKind]Kind{{Group: "apps", Kind: "Deployment"}: {
					State: func(context.Context, client.Reader, *unstructured.Unstructured) (State, error) {
						if passes && time.Since(start) >= limit-time.Second {
							return State{Ready: true}, nil
						}
						return State{Message: "overlooked", Kind: kind, Limit: limit}, nil
					},
				}}
				err := c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, deployment)})
				if passes {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !problem.Is(err, kind) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took < limit || took > limit+2*pollEvery {
					t.Errorf("it gave up after %s", took)
				}
			})
		})
	}
}
