package problem

// Proofs: what was measured against what a lesson claims.
var (
	ClaimRefuted = Kind{
		ID: "LAB-CLAIM-REFUTED", Layer: LayerProof, Number: 0,
		Title: "the evidence refutes a claim",
		Advice: []string{
			"Compare the evidence above with the expectation: " +
				"something in the cluster differs from what the lab applied.",
		},
	}
	ClaimInconclusive = Kind{
		ID: "LAB-CLAIM-INCONCLUSIVE", Layer: LayerProof, Number: 1,
		Title:  "the evidence neither proves nor refutes a claim",
		Advice: []string{"The reason is above. Run `mage sm:verify` again when the cluster has less load."},
	}
)

func proofKinds() []Kind {
	return []Kind{ClaimRefuted, ClaimInconclusive}
}
