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
	WebhookSilent = Kind{
		ID: "LAB-WEBHOOK-NOT-ANSWERING", Layer: LayerApply, Number: 8,
		Title:  "an admission webhook does not answer, so the API server refuses what it would check",
		Advice: []string{"Look at the pods behind the webhook named above; where its owner is gone, delete the webhook configuration."},
	}
	KindUnknown = Kind{
		ID: "LAB-KIND-UNKNOWN", Layer: LayerApply, Number: 9,
		Title:  "the cluster does not serve a kind of object that the lab needs",
		Advice: []string{"Its CRD is not installed: run `mage sm:install`, which brings it back."},
	}
	ObjectMissing = Kind{
		ID: "LAB-OBJECT-MISSING", Layer: LayerApply, Number: 9,
		Title:  "an object that the lab adds something to does not exist",
		Advice: []string{"Run the target that makes it first: `mage sm:apps`."},
	}
	ObjectOfAnotherLab = Kind{
		ID: "LAB-OBJECT-OF-ANOTHER-LAB", Layer: LayerApply, Number: 1,
		Title:  "an object belongs to another lab in the same cluster",
		Advice: []string{"Delete the other lab first, or use another cluster (SM_CLUSTER)."},
	}
)

func applyKinds() []Kind {
	return []Kind{
		ApplyRejected, ApplyConflict, ApplyForbidden, NotReady, ImagePull, CrashLoop, Unschedulable, DeleteStuck,
		WebhookSilent, KindUnknown, ObjectMissing, ObjectOfAnotherLab,
	}
}
