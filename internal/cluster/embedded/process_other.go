//go:build !linux && !darwin

package embedded

import (
	"os"
	"os/exec"
)

// startTime tells when a process started, in a form that is only compared, and whether it still runs. The error is for
// where that cannot be told.
func startTime(pid int) (string, bool, error) {
	return askPS(pid, func(environment []string, arguments ...string) ([]byte, error) {
		ps := exec.Command("ps", arguments...)
		ps.Env = append(os.Environ(), environment...)
		return ps.Output()
	})
}
