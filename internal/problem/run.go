package problem

// The run as a whole.
var (
	OutOfTime = Kind{
		ID: "LAB-OUT-OF-TIME", Layer: LayerRun, Number: 0,
		Title:  "a step, or the whole run, used up its time",
		Advice: []string{"The reason above says what it was waiting for; a slow machine may need a larger SM_TIMEOUT."},
	}
	Internal = Kind{
		ID: "LAB-INTERNAL", Layer: LayerRun, Number: 1,
		Title:  "the lab itself went wrong",
		Advice: []string{"Please report it with the output above."},
	}
	Interrupted = Kind{
		ID: "LAB-INTERRUPTED", Layer: LayerRun, Number: 2,
		Title:  "the run was interrupted",
		Advice: []string{"Run the same target again: it goes on from what is there."},
	}
)

func runKinds() []Kind {
	return []Kind{OutOfTime, Internal, Interrupted}
}
