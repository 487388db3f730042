package problem

// Objects in the cluster: applying them and waiting for them.
var (
	ApplyRejected = LayerApply.kind("LAB-APPLY-REJECTED", 0, "the API server rejected an object",
		"Correct the object named above. The API server's message says which field is wrong.")
	ApplyConflict = LayerApply.kind("LAB-APPLY-CONFLICT", 1, "another field manager owns a field that the lab sets",
		"Remove the field with the tool that set it (its field manager is named above), then run the target again.")
	ApplyForbidden = LayerApply.kind("LAB-APPLY-FORBIDDEN", 2, "this user lacks a permission in the cluster",
		"Use a kubeconfig context with cluster-admin rights.")
	NotReady = LayerApply.kind("LAB-NOT-READY", 3, "an object did not become ready in time",
		"The reason above says what the object waits for. Fix that, then run the target again: it continues from "+
			"there.")
	ImagePull = LayerApply.kind("LAB-IMAGE-PULL", 4, "a node cannot pull a container image",
		"Check that the nodes can reach the registry, or load the images from a bundle (SM_BUNDLE).")
	CrashLoop = LayerApply.kind("LAB-CRASH-LOOP", 5, "a container keeps exiting",
		"Read its log: the last line is above, `kubectl logs --previous` prints the rest.")
	Unschedulable = LayerApply.kind("LAB-UNSCHEDULABLE", 6, "the scheduler finds no node for a pod",
		"Give the Docker machine more memory or CPU, or remove the taint named above.")
	DeleteStuck = LayerApply.kind("LAB-DELETE-STUCK", 7, "a deleted object still exists",
		"Check that the controller of the finalizers named above runs, then run `mage sm:delete` again.")
	WebhookSilent = LayerApply.kind("LAB-WEBHOOK-NOT-ANSWERING", 8,
		"an admission webhook does not answer, so the API server refuses the requests that the webhook checks",
		"Check the pods behind the webhook named above.",
		"If the program that owns the webhook was uninstalled, delete the webhook configuration.")
	KindUnknown = LayerApply.kind("LAB-KIND-UNKNOWN", 9,
		"the cluster does not serve a kind of object that the lab needs",
		"Its CRD is not installed. Run `mage sm:install`, which installs it.")
	ObjectMissing = LayerApply.kind("LAB-OBJECT-MISSING", 9,
		"an object that the target changes or measures does not exist",
		"Run `mage sm:apps`, which creates it, then run the target again.")
	ObjectOfAnotherLab = LayerApply.kind("LAB-OBJECT-OF-ANOTHER-LAB", 1,
		"an object belongs to another lab in the same cluster",
		"Delete the other lab first, or use another cluster.")
)

func applyKinds() []Kind {
	return []Kind{
		ApplyRejected, ApplyConflict, ApplyForbidden, NotReady, ImagePull, CrashLoop, Unschedulable, DeleteStuck,
		WebhookSilent, KindUnknown, ObjectMissing, ObjectOfAnotherLab,
	}
}
