package apply

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
)

// podState wants a pod to be Ready, or to have run to its end.
func podState(p *corev1.Pod) state {
	switch p.Status.Phase {
	case corev1.PodSucceeded:
		return state{done: true}
	case corev1.PodFailed:
		return failed("it failed%s", podFailure(p))
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return state{done: true}
		}
	}
	return waiting("it is %s", cmp.Or(string(p.Status.Phase), "not seen by a kubelet yet"))
}

func podFailure(p *corev1.Pod) string {
	if p.Status.Reason != "" || p.Status.Message != "" {
		return ": " + p.Status.Reason + " " + p.Status.Message
	}
	return ""
}
