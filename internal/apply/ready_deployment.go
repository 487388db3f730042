package apply

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// deploymentState wants every replica to be of the current template and available.
func deploymentState(d *appsv1.Deployment) state {
	if d.Status.ObservedGeneration < d.Generation {
		return waiting("its controller has not seen its latest change yet")
	}
	want := replicas(d.Spec.Replicas)
	s := d.Status
	switch {
	case s.UpdatedReplicas < want:
		return deploymentReason(d, "%d of %d replicas are of the current template", s.UpdatedReplicas, want)
	case s.Replicas > s.UpdatedReplicas:
		return waiting("%d replicas of the former template are still going away", s.Replicas-s.UpdatedReplicas)
	case s.AvailableReplicas < want:
		return deploymentReason(d, "%d of %d replicas are available", s.AvailableReplicas, want)
	default:
		return state{done: true}
	}
}

// deploymentReason adds what the controller says where it cannot make pods at all, as
// with an exceeded quota or a webhook that does not answer: there is no pod to ask.
func deploymentReason(d *appsv1.Deployment, format string, args ...any) state {
	s := waiting(format, args...)
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			s.message += ": " + c.Message
		}
	}
	return s
}

// replicas reads a replica count, which is 1 where it is not set.
func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}
