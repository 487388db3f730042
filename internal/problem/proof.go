package problem

// Proofs: what was measured against what a lesson claims.
var (
	ClaimRefuted = LayerProof.kind("LAB-CLAIM-REFUTED", 0, "the evidence refutes a claim",
		"Compare the evidence above with the expectation: something in the cluster differs from what the lab applied.")
	ClaimInconclusive = LayerProof.kind("LAB-CLAIM-INCONCLUSIVE", 1, "the evidence neither proves nor refutes a claim",
		"The reason is above. Run `mage sm:verify` again when the cluster has less load.")
)

func proofKinds() []Kind {
	return []Kind{ClaimRefuted, ClaimInconclusive}
}
