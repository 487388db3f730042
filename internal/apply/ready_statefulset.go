package apply

import appsv1 "k8s.io/api/apps/v1"

// statefulSetState wants every replica to be of the current revision and ready.
func statefulSetState(s *appsv1.StatefulSet) state {
	if s.Status.ObservedGeneration < s.Generation {
		return waiting("its controller has not seen its latest change yet")
	}
	want := replicas(s.Spec.Replicas)
	onDelete := s.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType
	switch {
	case s.Status.ReadyReplicas < want:
		return waiting("%d of %d replicas are ready", s.Status.ReadyReplicas, want)
	case !onDelete && s.Status.UpdateRevision != s.Status.CurrentRevision && s.Status.UpdatedReplicas < want:
		return waiting("%d of %d replicas are of the current template", s.Status.UpdatedReplicas, want)
	default:
		return state{done: true}
	}
}
