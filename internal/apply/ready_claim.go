package apply

import corev1 "k8s.io/api/core/v1"

// claimState wants a volume to be bound, unless one is lost for good. A claim whose
// class waits for a first consumer is bound by its pod, so it is that pod's readiness.
func claimState(p *corev1.PersistentVolumeClaim) state {
	if p.Status.Phase == corev1.ClaimLost {
		return failed("its volume is lost")
	}
	return state{done: true}
}
