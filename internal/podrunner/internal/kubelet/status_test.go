package kubelet

import (
	"encoding/json"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func runs() corev1.ContainerState {
	return corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func ended(code int32) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
}

func TestStatus(t *testing.T) {
	container := func(state corev1.ContainerState, ready bool, change ...func(*containerState)) *containerState {
		c := &containerState{spec: &corev1.Container{Name: "c"}, state: state, ready: ready, started: ready}
		for _, f := range change {
			f(c)
		}
		return c
	}
	initial := func(c *containerState) { c.init = true }
	sidecar := func(c *containerState) { c.init, c.sidecar = true, true }
	crashed := func(c *containerState) { c.last = ended(1) }
	for name, c := range map[string]struct {
		containers []*containerState
		over       bool
		phase      corev1.PodPhase
		// conditions that are True, of PodInitialized, ContainersReady and PodReady
		initialized, ready bool
	}{
		"not started": {
			[]*containerState{container(waiting("ContainerCreating", ""), false)},
			false,
			corev1.PodPending, true, false,
		},
		"running, not ready": {
			[]*containerState{container(runs(), false)},
			false, corev1.PodRunning, true,
			false,
		},
		"running and ready": {
			[]*containerState{container(runs(), true)},
			false, corev1.PodRunning, true,
			true,
		},
		"one of two ready": {
			[]*containerState{container(runs(), true), container(runs(), false)},
			false,
			corev1.PodRunning, true, false,
		},
		"one of two not started": {
			[]*containerState{container(runs(), true), container(waiting("", ""), false)},
			false, corev1.PodPending, true, false,
		},
		"crash loop": {
			[]*containerState{container(waiting("CrashLoopBackOff", ""), false, crashed)},
			false, corev1.PodRunning, true, false,
		},
		"ended, to be started again": {
			[]*containerState{container(ended(1), false)},
			false, corev1.PodRunning, true,
			false,
		},
		"ended well": {
			[]*containerState{container(ended(0), false)},
			true, corev1.PodSucceeded,
			true, false,
		},
		"ended badly": {
			[]*containerState{container(ended(0), false), container(ended(2), false)},
			true, corev1.PodFailed, true, false,
		},
		"init runs": {
			[]*containerState{container(runs(), false, initial), container(waiting("", ""), false)},
			false,
			corev1.PodPending, false, false,
		},
		"init done": {
			[]*containerState{container(ended(0), false, initial), container(runs(), true)},
			false, corev1.PodRunning,
			true, true,
		},
		"init failed for good": {
			[]*containerState{container(ended(1), false, initial), container(waiting("", ""), false)},
			true,
			corev1.PodFailed, false, false,
		},
		"sidecar not ready": {
			[]*containerState{
				container(runs(), false, sidecar, func(c *containerState) { c.started = true }),
				container(runs(), true),
			}, false, corev1.PodRunning, true, false,
		},
		"sidecar has not started": {
			[]*containerState{container(runs(), false, sidecar), container(waiting("", ""), false)},
			false,
			corev1.PodPending, false, false,
		},
		"deleted before it was started": {
			[]*containerState{container(waiting("", ""), false)},
			true, corev1.PodFailed,
			true, false,
		},
	} {
		state := &podState{
			address:    "10.244.0.2",
			host:       "198.51.100.1",
			started:    time.Unix(5, 0),
			connected:  true,
			containers: c.containers,
			over:       c.over,
		}
		status := state.status(samplePod(), metav1.Unix(9, 0))
		if status.Phase != c.phase {
			t.Errorf("%s: phase %s, want %s", name, status.Phase, c.phase)
		}
		holds := map[corev1.PodConditionType]bool{}
		for _, condition := range status.Conditions {
			holds[condition.Type] = condition.Status == corev1.ConditionTrue
		}
		if holds[corev1.PodInitialized] != c.initialized || holds[corev1.ContainersReady] != c.ready ||
			holds[corev1.PodReady] != c.ready {
			t.Errorf("%s: conditions %v", name, status.Conditions)
		}
	}
}

// TestConditionTime keeps the time of a condition's last transition while it does not change, and a condition that is
// not the kubelet's.
func TestConditionTime(t *testing.T) {
	pod := samplePod()
	pod.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Unix(1, 0)},
	}
	c := &containerState{spec: &pod.Spec.Containers[0], state: runs(), ready: true}
	state := &podState{containers: []*containerState{c}}
	at := func(seconds int64, kind corev1.PodConditionType) int64 {
		pod.Status = state.status(pod, metav1.Unix(seconds, 0))
		for _, condition := range pod.Status.Conditions {
			if condition.Type == kind {
				return condition.LastTransitionTime.Unix()
			}
		}
		return 0
	}
	if got := at(10, corev1.PodReady); got != 10 {
		t.Errorf("first: %d", got)
	}
	if got := at(20, corev1.PodReady); got != 10 {
		t.Errorf("unchanged: %d", got)
	}
	c.ready = false
	if got := at(30, corev1.PodReady); got != 30 {
		t.Errorf("changed: %d", got)
	}
	if got := at(40, corev1.PodScheduled); got != 1 {
		t.Errorf("the scheduler's: %d", got)
	}
}

// TestReadinessGate keeps a pod from being ready until its own condition holds.
func TestReadinessGate(t *testing.T) {
	pod := samplePod()
	pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "gate"}}
	state := &podState{containers: []*containerState{{spec: &pod.Spec.Containers[0], state: runs(), ready: true}}}
	ready := func() bool {
		pod.Status = state.status(pod, metav1.Unix(1, 0))
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodReady {
				return condition.Status == corev1.ConditionTrue
			}
		}
		return false
	}
	if ready() {
		t.Error("ready with the gate closed")
	}
	pod.Status.Conditions = append(
		pod.Status.Conditions,
		corev1.PodCondition{Type: "gate", Status: corev1.ConditionTrue},
	)
	if !ready() {
		t.Error("not ready with the gate open")
	}
}

// TestStatusAsStored computes the same status from what the API server stored: otherwise the pod runner would write it
// again and again.
func TestStatusAsStored(t *testing.T) {
	began := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.Local))
	later := metav1.NewTime(began.Add(1500 * time.Millisecond))
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}
	over := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{StartedAt: began, FinishedAt: later}}
	for name, c := range map[string]*containerState{
		"waiting":         {state: waiting("CrashLoopBackOff", "back-off"), last: over},
		"running":         {state: running, ready: true, started: true},
		"running again":   {state: running, last: over, restarts: 1},
		"terminated":      {state: over},
		"init terminated": {state: over, init: true},
	} {
		t.Run(name, func(t *testing.T) {
			pod := samplePod()
			c.spec = &pod.Spec.Containers[0]
			state := &podState{
				started: began.Time, host: "10.0.0.1", address: "10.0.0.2", containers: []*containerState{c},
			}
			written, err := json.Marshal(state.status(pod, later))
			if err != nil {
				t.Fatal(err)
			}
			pod.Status = corev1.PodStatus{}
			if err := json.Unmarshal(written, &pod.Status); err != nil {
				t.Fatal(err)
			}
			again := state.status(pod, metav1.NewTime(later.Add(time.Minute)))
			if !equality.Semantic.DeepEqual(pod.Status, again) {
				t.Errorf("stored  %+v\ncomputed %+v", pod.Status, again)
			}
		})
	}
}
