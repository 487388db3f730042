package node

import (
	"fmt"
	"strconv"
	"strings"
)

// Mark is how the lab knows a node container for its own. kind offers no Docker
// label to its users, and a mark inside the cluster would come too late: a run that
// is killed in the middle of a create leaves containers and no API server. So the
// mark is the mount point of an extra mount in kind's configuration, which is there
// from the container's first moment and is listed with it even when it is stopped.
//
// What is mounted does not matter; it is /lib/modules, read-only, which kind mounts
// into every node anyway, so no directory is made on the host.
type Mark struct {
	// Lab is the lab's name.
	Lab string
	// Slot is the lab's share of the Docker network's addresses; see package lb.
	Slot int
}

const (
	markRoot = "/etc/ambientlab/"
	slotPart = "/slot-"
)

// MarkSource is the host path that is mounted at a mark's MountPoint.
const MarkSource = "/lib/modules"

// MountPoint is the path in the container that carries the mark, such as
// /etc/ambientlab/ambient/slot-0.
func (m Mark) MountPoint() string {
	return fmt.Sprintf("%s%s%s%d", markRoot, m.Lab, slotPart, m.Slot)
}

func parseMark(path string) (Mark, bool) {
	rest, ok := strings.CutPrefix(path, markRoot)
	if !ok {
		return Mark{}, false
	}
	lab, number, ok := strings.Cut(rest, slotPart)
	if !ok || lab == "" || strings.Contains(lab, "/") {
		return Mark{}, false
	}
	slot, err := strconv.Atoi(number)
	if err != nil || slot < 0 {
		return Mark{}, false
	}
	return Mark{Lab: lab, Slot: slot}, true
}
