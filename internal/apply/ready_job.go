package apply

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// jobState wants a Job to be complete; one that gave up will not become so.
func jobState(j *batchv1.Job) state {
	for _, c := range j.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		switch c.Type {
		case batchv1.JobComplete, batchv1.JobSuccessCriteriaMet:
			return state{done: true}
		case batchv1.JobFailed:
			return failed("it failed: %s: %s", c.Reason, c.Message)
		case batchv1.JobSuspended:
			return waiting("it is suspended")
		}
	}
	return waiting("%d pods run, %d succeeded, %d failed", j.Status.Active, j.Status.Succeeded, j.Status.Failed)
}
