package apply

import appsv1 "k8s.io/api/apps/v1"

// daemonSetState wants a current and available pod on every node that should have one.
func daemonSetState(d *appsv1.DaemonSet) state {
	if d.Status.ObservedGeneration < d.Generation {
		return waiting("its controller has not seen its latest change yet")
	}
	s := d.Status
	want := s.DesiredNumberScheduled
	switch {
	case s.CurrentNumberScheduled < want:
		return waiting("%d of %d nodes have its pod", s.CurrentNumberScheduled, want)
	case s.UpdatedNumberScheduled < want && d.Spec.UpdateStrategy.Type != appsv1.OnDeleteDaemonSetStrategyType:
		return waiting("on %d of %d nodes its pod is of the current template", s.UpdatedNumberScheduled, want)
	case s.NumberAvailable < want:
		return waiting("on %d of %d nodes its pod is available", s.NumberAvailable, want)
	default:
		return state{done: true}
	}
}
