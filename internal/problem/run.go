package problem

// The run as a whole.
var (
	OutOfTime = Kind{
		ID: "LAB-OUT-OF-TIME", Layer: LayerRun, Number: 0,
		Title:  "a step or the whole run exceeded its time limit",
		Advice: []string{"The reason above says what it waited for. On a slow machine, set a larger SM_TIMEOUT."},
	}
	Internal = Kind{
		ID: "LAB-INTERNAL", Layer: LayerRun, Number: 1,
		Title:  "an unexpected error occurred in the lab",
		Advice: []string{"Please report it with the output above."},
	}
	CommandFailed = Kind{
		ID: "LAB-COMMAND-FAILED", Layer: LayerRun, Number: 3,
		Title:  "the command that sm:run was given failed; sm:run ends with the exit code of the command",
		Advice: []string{"Read the output of the command above. -keep=failure keeps the lab, to look at it."},
	}
	Interrupted = Kind{
		ID: "LAB-INTERRUPTED", Layer: LayerRun, Number: 2,
		Title:  "the run was interrupted",
		Advice: []string{"Run the same target again: it continues from there."},
	}
)

func runKinds() []Kind {
	return []Kind{OutOfTime, Internal, CommandFailed, Interrupted}
}
