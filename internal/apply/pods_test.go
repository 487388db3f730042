package apply

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRestarts names the containers that ended lately and were started again, or wait for it, the latest first.
func TestRestarts(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	ended := func(before time.Duration, code int32, reason string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			ExitCode: code, Reason: reason, FinishedAt: metav1.NewTime(now.Add(-before)),
		}}
	}
	pod := func(name string, status corev1.ContainerStatus) corev1.Pod {
		status.Name = "c"
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{status}},
		}
	}
	gone := pod("is-being-deleted", corev1.ContainerStatus{RestartCount: 1, LastTerminationState: ended(1, 1, "Error")})
	gone.DeletionTimestamp = &metav1.Time{Time: now}
	pods := Pods{
		Items: []corev1.Pod{
			pod("never-ended", corev1.ContainerStatus{State: running, Ready: true}),
			pod("long-ago", corev1.ContainerStatus{
				State: running, Ready: true, RestartCount: 1, LastTerminationState: ended(2*time.Hour, 1, "Error"),
			}),
			pod("killed", corev1.ContainerStatus{
				State: running, Ready: true, RestartCount: 1, LastTerminationState: ended(20*time.Second, 137, "Error"),
			}),
			pod("waits", corev1.ContainerStatus{
				State:        corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				RestartCount: 2, LastTerminationState: ended(10*time.Second, 0, "Completed"),
			}),
			gone,
		},
		Log: func(pod, container string, previous bool) string {
			if !previous {
				t.Errorf("the log of the present run of %s/%s is read", pod, container)
			}
			return "Envoy exited: signal: killed"
		},
	}
	var got []string
	for _, restart := range pods.Restarts(now.Add(-time.Hour)) {
		got = append(got, restart.Pod.Name+", "+now.Sub(restart.Ended).String()+": "+restart.Reason)
	}
	want := []string{
		"waits, 10s: container c ended with exit code 0 (Completed), 2 restarts, " +
			"last log lines: Envoy exited: signal: killed",
		"killed, 20s: container c ended with exit code 137, 1 restart",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
