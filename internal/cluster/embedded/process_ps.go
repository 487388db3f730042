package embedded

import (
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// askPS asks ps, which is on every Unix, for the start of a process; its answer to the second is fine enough: process
// IDs do not come round within one. The locale and the time zone are set, since the same process must give the same
// text to every shell that asks.
func askPS(pid int, run func(environment []string, arguments ...string) ([]byte, error)) (string, bool, error) {
	if pid <= 0 {
		return "", false, nil
	}
	out, err := run([]string{"LC_ALL=C", "TZ=UTC"}, "-o", "state=", "-o", "lstart=", "-p", strconv.Itoa(pid))
	fields := strings.Fields(string(out))
	// POSIX has ps fail where it finds no process; that it could not be run at all says nothing about the process.
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed) && failed.ExitCode() == 1 && len(fields) == 0 && len(failed.Stderr) == 0:
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("asking ps for process %d: %w", pid, err)
	case len(fields) == 0 || strings.HasPrefix(fields[0], "Z"):
		return "", false, nil
	case len(fields) < 2:
		return "", false, fmt.Errorf("ps says %q of process %d", out, pid)
	}
	return strings.Join(fields[1:], " "), true, nil
}
