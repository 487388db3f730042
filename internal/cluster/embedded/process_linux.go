package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// startTime tells when a process started, in a form that is only compared, and whether it still runs. One that ended
// and was not fetched by its parent does not. The error is for where that cannot be told.
func startTime(pid int) (string, bool, error) {
	if pid <= 0 {
		return "", false, nil
	}
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// The second is a process that ends while it is read.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	// The second field is the program's name in parentheses, which may hold anything; the rest has no parenthesis.
	// proc(5): state is field 3 and starttime is field 22.
	end := strings.LastIndexByte(string(raw), ')')
	if end < 0 {
		return "", false, nil
	}
	fields := strings.Fields(string(raw)[end+1:])
	if len(fields) < 20 || fields[0] == "X" {
		return "", false, nil
	}
	if fields[0] == "Z" {
		// Its first thread has ended. Others of a process that was killed may still be ending, and hold its ports.
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil || len(threads) <= 1 {
			return "", false, nil
		}
	}
	// Start times are counted from the system's own start, which the boot ID tells from the one before.
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = nil // hidden in some containers, which do not outlive their system
	}
	return strings.TrimSpace(string(boot)) + "+" + fields[19], true, nil
}
