package command

import "os"

// GoBuild is the environment for a go command that compiles much. A program is hundreds of small packages, each
// compiled by a process of its own, and with Go's usual setting a third of the processor time of such a process is
// garbage collection. The limit keeps the few large packages from using much more memory than they do otherwise. An
// environment that has its own GOGC is left alone (https://pkg.go.dev/runtime, GOGC and GOMEMLIMIT).
func GoBuild() []string {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	return []string{"GOGC=400", "GOMEMLIMIT=1GiB"}
}
