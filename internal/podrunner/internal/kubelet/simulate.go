package kubelet

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// simulates says why a pod is not run; empty is for one that is.
func (k *Kubelet) simulates(pod *corev1.Pod) string {
	if k.Runtime == nil || k.Config.Simulate {
		return "pods are not run in this lab"
	}
	if pod.Spec.HostNetwork {
		return "its pod uses the network of a node, which this lab does not have"
	}
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if _, known := k.Config.Find(container.Image); !known {
			return fmt.Sprintf("there is no program for image %s", container.Image)
		}
	}
	return ""
}

// simulate says that the pod runs and is ready, and that it is simulated. A Job's pod succeeds at once.
func (w *worker) simulate(life context.Context, reason string) {
	pod := w.current()
	address := ""
	if !pod.Spec.HostNetwork {
		if taken, err := w.takeAddress(life); err == nil {
			address = taken.String()
			defer w.addresses.Release(taken)
		} else if life.Err() == nil {
			w.k.Log.Warn("a pod has no address", "pod", w.name(), "error", err)
		}
	} else {
		address = w.state.host
	}
	job := slices.ContainsFunc(
		pod.OwnerReferences,
		func(owner metav1.OwnerReference) bool { return owner.Kind == "Job" },
	)
	if w.k.Runtime != nil { // others run
		w.event(corev1.EventTypeNormal, "Simulated", "Nothing runs in this pod: %s", reason)
	}
	now := metav1.Now()
	w.change(func(s *podState) {
		w.annotations[Simulated] = reason
		s.address, s.connected, s.over = address, true, job
		for _, c := range s.containers {
			c.id = containerID(pod, c)
			c.started, c.ready = !c.init || c.sidecar, !job
			c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
			if job || c.init && !c.sidecar {
				c.state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
					Reason: "Completed", StartedAt: now, FinishedAt: now, ContainerID: c.id,
				}}
			}
		}
	})
	<-life.Done()
}

// containerID names one run of a container.
func containerID(pod *corev1.Pod, c *containerState) string {
	return fmt.Sprintf("podrunner://%s-%s-%d", pod.UID, c.spec.Name, c.restarts)
}
