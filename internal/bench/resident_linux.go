package main

import (
	"os"
	"syscall"
)

// peakResident is the most memory in bytes that a process had which has ended; known is false where the system does not
// tell.
func peakResident(state *os.ProcessState) (size int64, known bool) {
	usage, known := state.SysUsage().(*syscall.Rusage)
	if !known {
		return 0, false
	}
	return int64(usage.Maxrss) << 10, true // getrusage(2): kilobytes
}
