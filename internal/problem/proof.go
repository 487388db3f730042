package problem

// Proofs: what was measured against what a lesson claims.
var (
	ClaimRefuted = Kind{
		ID: "LAB-CLAIM-REFUTED", Layer: LayerProof, Number: 0,
		Title:  "a measurement refutes what a lesson claims",
		Advice: []string{"The evidence above says what was measured and against which expectation."},
	}
	ClaimInconclusive = Kind{
		ID: "LAB-CLAIM-INCONCLUSIVE", Layer: LayerProof, Number: 1,
		Title:  "a measurement neither proves nor refutes a claim",
		Advice: []string{"The reason is above; run `mage sm:verify` again when the cluster is quiet."},
	}
	TrafficFailed = Kind{
		ID: "LAB-TRAFFIC-FAILED", Layer: LayerProof, Number: 2,
		Title:  "the traffic for a measurement could not be sent",
		Advice: []string{"See that appa and the gateway run: `mage sm:status`."},
	}
)

func proofKinds() []Kind {
	return []Kind{ClaimRefuted, ClaimInconclusive, TrafficFailed}
}
