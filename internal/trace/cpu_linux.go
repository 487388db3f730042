package trace

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tick is the unit of /proc/stat (proc_stat(5), USER_HZ).
const tick = time.Second / 100

// Spent gives the CPU time that the machine and this process have spent, and 0 where the system does not tell.
func Spent() (machine, process time.Duration) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		process = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	raw, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, process
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(line) {
		// cpu user nice system idle iowait irq softirq steal guest guest_nice; guest is part of user.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		value, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, process
		}
		machine += time.Duration(value) * tick
	}
	return machine, process
}
