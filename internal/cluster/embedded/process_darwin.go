package embedded

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// startTime tells when a process started, in a form that is only compared, and whether it still runs, as the kernel
// says: what ps prints of it changes with the locale and the time zone. The error is for where that cannot be told.
func startTime(pid int) (string, bool, error) {
	if pid <= 0 {
		return "", false, nil
	}
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	// Of a process that is not there the kernel gives nothing, which is an EIO of x/sys (SysctlKinfoProc).
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.ESRCH) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("asking the kernel for process %d: %w", pid, err)
	}
	const zombie = 5 // SZOMB in XNU's bsd/sys/proc.h: it ended and was not fetched by its parent
	if info.Proc.P_stat == zombie {
		return "", false, nil
	}
	return fmt.Sprintf("%d.%06d", info.Proc.P_starttime.Sec, info.Proc.P_starttime.Usec), true, nil
}
