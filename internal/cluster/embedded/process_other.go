//go:build !linux

package embedded

import (
	"os/exec"
	"strconv"
	"strings"
)

// startTime tells when a process started, in a form that is only compared, and whether it still runs. ps is on every
// Unix, and its answer to the second is fine enough: process IDs do not come round within one.
func startTime(pid int) (string, bool) {
	if pid <= 0 {
		return "", false
	}
	out, err := exec.Command("ps", "-o", "state=,lstart=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return "", false
	}
	fields := strings.Fields(string(out))
	if len(fields) < 2 || strings.HasPrefix(fields[0], "Z") {
		return "", false
	}
	return strings.Join(fields[1:], " "), true
}
