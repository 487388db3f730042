package embedded

import (
	"fmt"
	"os"
	"strings"
)

// startTime tells when a process started, in a form that is only compared, and whether it still runs. One that ended
// and was not fetched by its parent does not.
func startTime(pid int) (string, bool) {
	if pid <= 0 {
		return "", false
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The second field is the program's name in parentheses, which may hold anything; the rest has no parenthesis.
	// proc(5): state is field 3 and starttime is field 22.
	end := strings.LastIndexByte(string(raw), ')')
	if end < 0 {
		return "", false
	}
	fields := strings.Fields(string(raw)[end+1:])
	if len(fields) < 20 || fields[0] == "X" {
		return "", false
	}
	if fields[0] == "Z" {
		// Its first thread has ended. Others of a process that was killed may still be ending, and hold its ports.
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(threads) <= 1 {
			return "", false
		}
	}
	// Start times are counted from the system's own start, which the boot ID tells from the one before.
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // hidden in some containers, which do not outlive their system
	}
	return strings.TrimSpace(string(boot)) + "+" + fields[19], true
}
