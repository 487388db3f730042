package kubelet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// containerState is what is known of a container of a pod.
type containerState struct {
	spec *corev1.Container
	// init and sidecar tell of an init container, and of one that runs together with the others.
	init, sidecar bool
	state, last   corev1.ContainerState
	restarts      int32
	id            string
	started       bool
	ready         bool
}

// waiting is the state of a container that does not run yet.
func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// podState is what is known of a pod.
type podState struct {
	address    string
	host       string
	started    time.Time
	connected  bool // its network is there
	containers []*containerState
	// over says that no container will be started again; phase and reason of the pod are then final.
	over bool
	// reason and message say why the pod as a whole is what it is.
	reason, message string
}

// status computes a pod's status from what it was and what is known, as a kubelet does. Conditions that are not a
// kubelet's stay as they are. Times are in whole seconds, because that is what the API server stores: a status with
// fractions of a second would always differ from the stored one, and be written again and again.
func (s *podState) status(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	now = now.Rfc3339Copy()
	status := *pod.Status.DeepCopy()
	status.ObservedGeneration = pod.Generation
	status.HostIP, status.HostIPs = s.host, []corev1.HostIP{{IP: s.host}}
	if s.address != "" {
		status.PodIP, status.PodIPs = s.address, []corev1.PodIP{{IP: s.address}}
	}
	if status.StartTime == nil {
		started := metav1.NewTime(s.started.Truncate(time.Second))
		status.StartTime = &started
	}
	status.Reason, status.Message = s.reason, s.message
	status.InitContainerStatuses, status.ContainerStatuses = nil, nil
	for _, c := range s.containers {
		if c.init {
			status.InitContainerStatuses = append(status.InitContainerStatuses, c.status())
		} else {
			status.ContainerStatuses = append(status.ContainerStatuses, c.status())
		}
	}
	status.Phase = s.phase()
	done := status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed
	initialized, waitingFor := s.initialized()
	condition := func(kind corev1.PodConditionType, holds bool, reason, message string) {
		setCondition(&status, pod.Generation, now, kind, holds, reason, message)
	}
	condition(corev1.PodReadyToStartContainers, s.connected, "", "")
	switch {
	case initialized && status.Phase == corev1.PodSucceeded:
		condition(corev1.PodInitialized, true, "PodCompleted", "")
	case initialized:
		condition(corev1.PodInitialized, true, "", "")
	default:
		condition(
			corev1.PodInitialized,
			false,
			"ContainersNotInitialized",
			fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(waitingFor, " ")),
		)
	}
	unready := s.unready()
	reason, message := "ContainersNotReady", fmt.Sprintf(
		"containers with unready status: [%s]",
		strings.Join(unready, " "),
	)
	ready := initialized && len(unready) == 0 && !done
	switch {
	case status.Phase == corev1.PodSucceeded:
		reason, message = "PodCompleted", ""
	case status.Phase == corev1.PodFailed:
		reason, message = "PodFailed", ""
	case ready:
		reason, message = "", ""
	}
	condition(corev1.ContainersReady, ready, reason, message)
	if gates := closedGates(pod); ready && len(gates) > 0 {
		ready, reason, message = false, "ReadinessGatesNotReady", fmt.Sprintf(
			"readiness gates that are not True: [%s]",
			strings.Join(gates, " "),
		)
	}
	condition(corev1.PodReady, ready, reason, message)
	return status
}

func (c *containerState) status() corev1.ContainerStatus {
	started := c.started
	return corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, ContainerID: c.id,
		State: wholeSeconds(c.state), LastTerminationState: wholeSeconds(c.last),
		RestartCount: c.restarts, Ready: c.ready, Started: &started,
	}
}

// wholeSeconds is the state with its times in whole seconds.
func wholeSeconds(state corev1.ContainerState) corev1.ContainerState {
	copied := *state.DeepCopy()
	if running := copied.Running; running != nil {
		running.StartedAt = running.StartedAt.Rfc3339Copy()
	}
	if ended := copied.Terminated; ended != nil {
		ended.StartedAt, ended.FinishedAt = ended.StartedAt.Rfc3339Copy(), ended.FinishedAt.Rfc3339Copy()
	}
	return copied
}

// phase is the pod's phase: Pending until every container of its own has been started.
func (s *podState) phase() corev1.PodPhase {
	if ok, _ := s.initialized(); !ok && !s.over {
		return corev1.PodPending
	}
	terminated, failed := 0, false
	own := s.own()
	for _, c := range own {
		switch {
		case c.state.Terminated != nil:
			terminated++
			failed = failed || c.state.Terminated.ExitCode != 0
		case c.state.Waiting != nil && c.last.Terminated == nil && !s.over:
			return corev1.PodPending
		case c.state.Waiting != nil:
			failed = true // it never ran
		}
	}
	switch {
	case !s.over:
		return corev1.PodRunning
	case failed || terminated < len(own):
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

// own are the containers of the pod that are no init containers.
func (s *podState) own() []*containerState {
	return slices.DeleteFunc(slices.Clone(s.containers), func(c *containerState) bool { return c.init })
}

// initialized tells whether every init container has ended well, and every sidecar has started.
func (s *podState) initialized() (bool, []string) {
	var missing []string
	for _, c := range s.containers {
		switch {
		case !c.init:
		case c.sidecar && c.started:
		case !c.sidecar && c.state.Terminated != nil && c.state.Terminated.ExitCode == 0:
		default:
			missing = append(missing, c.spec.Name)
		}
	}
	return len(missing) == 0, missing
}

func (s *podState) unready() []string {
	var names []string
	for _, c := range s.containers {
		if (!c.init || c.sidecar) && !c.ready {
			names = append(names, c.spec.Name)
		}
	}
	return names
}

// closedGates are the pod's own conditions for being ready that are not met.
func closedGates(pod *corev1.Pod) []string {
	var closed []string
	for _, gate := range pod.Spec.ReadinessGates {
		open := slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == gate.ConditionType && c.Status == corev1.ConditionTrue
		})
		if !open {
			closed = append(closed, string(gate.ConditionType))
		}
	}
	return closed
}

// setCondition sets a condition, and the time of its transition where it changes.
func setCondition(
	status *corev1.PodStatus,
	generation int64,
	now metav1.Time,
	kind corev1.PodConditionType,
	holds bool,
	reason, message string,
) {
	wanted := corev1.PodCondition{
		Type: kind, Status: corev1.ConditionFalse, Reason: reason, Message: message,
		LastTransitionTime: now, ObservedGeneration: generation,
	}
	if holds {
		wanted.Status = corev1.ConditionTrue
	}
	for i, have := range status.Conditions {
		if have.Type == kind {
			if have.Status == wanted.Status {
				wanted.LastTransitionTime = have.LastTransitionTime
			}
			wanted.LastProbeTime = have.LastProbeTime
			status.Conditions[i] = wanted
			return
		}
	}
	status.Conditions = append(status.Conditions, wanted)
}
