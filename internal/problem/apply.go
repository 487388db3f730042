package problem

// Objects in the cluster: applying them and waiting for them.
var (
	ApplyRejected = Kind{
		ID: "LAB-APPLY-REJECTED", Layer: LayerApply, Number: 0,
		Title:  "the API server rejected an object",
		Advice: []string{"Correct the object named above. The API server's message says which field is wrong."},
	}
	ApplyConflict = Kind{
		ID: "LAB-APPLY-CONFLICT", Layer: LayerApply, Number: 1,
		Title: "another field manager owns a field that the lab sets",
		Advice: []string{
			"Remove the field with the tool that set it (its field manager is named above), then run the target again.",
		},
	}
	ApplyForbidden = Kind{
		ID: "LAB-APPLY-FORBIDDEN", Layer: LayerApply, Number: 2,
		Title:  "this user lacks a permission in the cluster",
		Advice: []string{"Use a kubeconfig context with cluster-admin rights."},
	}
	NotReady = Kind{
		ID: "LAB-NOT-READY", Layer: LayerApply, Number: 3,
		Title: "an object did not become ready in time",
		Advice: []string{
			"The reason above says what the object waits for. Fix that, then run the target again: " +
				"it continues from there.",
		},
	}
	ImagePull = Kind{
		ID: "LAB-IMAGE-PULL", Layer: LayerApply, Number: 4,
		Title:  "a node cannot pull a container image",
		Advice: []string{"Check that the nodes can reach the registry, or load the images from a bundle (SM_BUNDLE)."},
	}
	CrashLoop = Kind{
		ID: "LAB-CRASH-LOOP", Layer: LayerApply, Number: 5,
		Title:  "a container keeps exiting",
		Advice: []string{"Read its log: the last line is above, `kubectl logs --previous` prints the rest."},
	}
	Unschedulable = Kind{
		ID: "LAB-UNSCHEDULABLE", Layer: LayerApply, Number: 6,
		Title:  "the scheduler finds no node for a pod",
		Advice: []string{"Give the Docker machine more memory or CPU, or remove the taint named above."},
	}
	DeleteStuck = Kind{
		ID: "LAB-DELETE-STUCK", Layer: LayerApply, Number: 7,
		Title: "a deleted object still exists",
		Advice: []string{
			"Check that the controller of the finalizers named above runs, then run `mage sm:delete` again.",
		},
	}
	WebhookSilent = Kind{
		ID: "LAB-WEBHOOK-NOT-ANSWERING", Layer: LayerApply, Number: 8,
		Title: "an admission webhook does not answer, so the API server refuses the requests that the webhook checks",
		Advice: []string{
			"Check the pods behind the webhook named above.",
			"If the program that owns the webhook was uninstalled, delete the webhook configuration.",
		},
	}
	KindUnknown = Kind{
		ID: "LAB-KIND-UNKNOWN", Layer: LayerApply, Number: 9,
		Title:  "the cluster does not serve a kind of object that the lab needs",
		Advice: []string{"Its CRD is not installed. Run `mage sm:install`, which installs it."},
	}
	ObjectMissing = Kind{
		ID: "LAB-OBJECT-MISSING", Layer: LayerApply, Number: 9,
		Title:  "an object that the target changes or measures does not exist",
		Advice: []string{"Run `mage sm:apps`, which creates it, then run the target again."},
	}
	ObjectOfAnotherLab = Kind{
		ID: "LAB-OBJECT-OF-ANOTHER-LAB", Layer: LayerApply, Number: 1,
		Title:  "an object belongs to another lab in the same cluster",
		Advice: []string{"Delete the other lab first, or use another cluster."},
	}
)

func applyKinds() []Kind {
	return []Kind{
		ApplyRejected, ApplyConflict, ApplyForbidden, NotReady, ImagePull, CrashLoop, Unschedulable, DeleteStuck,
		WebhookSilent, KindUnknown, ObjectMissing, ObjectOfAnotherLab,
	}
}
