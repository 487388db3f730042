package problem

// Objects in the cluster: applying them and waiting for them.
var (
	ApplyRejected = Kind{
		ID: "LAB-APPLY-REJECTED", Layer: LayerApply, Number: 0,
		Title:  "the API server rejected an object",
		Advice: []string{"Correct the object named above; the server's words say which field."},
	}
	ApplyConflict = Kind{
		ID: "LAB-APPLY-CONFLICT", Layer: LayerApply, Number: 1,
		Title:  "another field manager owns a field that the lab sets",
		Advice: []string{"Let the manager named above give the field up, or remove its change, then run the target again."},
	}
	ApplyForbidden = Kind{
		ID: "LAB-APPLY-FORBIDDEN", Layer: LayerApply, Number: 2,
		Title:  "this user may not do that in the cluster",
		Advice: []string{"Use a kubeconfig context with cluster-admin rights."},
	}
	NotReady = Kind{
		ID: "LAB-NOT-READY", Layer: LayerApply, Number: 3,
		Title:  "an object did not become ready in time",
		Advice: []string{"The reason above names what it waits for; once that is put right, run the target again: it goes on from there."},
	}
	ImagePull = Kind{
		ID: "LAB-IMAGE-PULL", Layer: LayerApply, Number: 4,
		Title: "a node cannot get a container image",
		Advice: []string{
			"Check that the nodes reach the registry, or load a bundle (SM_BUNDLE).",
		},
	}
	CrashLoop = Kind{
		ID: "LAB-CRASH-LOOP", Layer: LayerApply, Number: 5,
		Title:  "a container keeps exiting",
		Advice: []string{"Its last log line is above; `kubectl logs --previous` has the rest."},
	}
	Unschedulable = Kind{
		ID: "LAB-UNSCHEDULABLE", Layer: LayerApply, Number: 6,
		Title:  "no node takes a pod",
		Advice: []string{"Give the Docker machine more memory or CPU, or remove the taint named above."},
	}
	DeleteStuck = Kind{
		ID: "LAB-DELETE-STUCK", Layer: LayerApply, Number: 7,
		Title:  "an object is not going away",
		Advice: []string{"Its finalizers are named above; see that their controller runs, then run `mage sm:delete` again."},
	}
)

func applyKinds() []Kind {
	return []Kind{
		ApplyRejected, ApplyConflict, ApplyForbidden, NotReady, ImagePull, CrashLoop, Unschedulable, DeleteStuck,
	}
}
