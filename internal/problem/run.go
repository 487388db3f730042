package problem

// The run as a whole.
var (
	OutOfTime = LayerRun.kind("LAB-OUT-OF-TIME", 0, "a step or the whole run exceeded its time limit",
		"The reason above says what it waited for. On a slow machine, set a larger SM_TIMEOUT.")
	Internal = LayerRun.kind("LAB-INTERNAL", 1, "an unexpected error occurred in the lab",
		"Please report it with the output above.")
	CommandFailed = LayerRun.kind("LAB-COMMAND-FAILED", 3,
		"the command that sm:run was given failed; sm:run ends with the exit code of the command",
		"Read the output of the command above. -keep=failure keeps the lab, to look at it.")
	Interrupted = LayerRun.kind("LAB-INTERRUPTED", 2, "the run was interrupted",
		"Run the same target again: it continues from there.")
)

func runKinds() []Kind {
	return []Kind{OutOfTime, Internal, CommandFailed, Interrupted}
}
