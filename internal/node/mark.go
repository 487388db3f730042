package node

import (
	"fmt"
	"strconv"
	"strings"
)

// Mark identifies the node containers that the lab created. kind does not let its users set Docker labels, and a mark
// inside the cluster would not exist yet if a run is killed while it creates the cluster. So the mark is the mount
// point of an extra mount in kind's configuration: it exists as long as the container, and Docker lists it even for a
// stopped container.
//
// The content of the mount does not matter. It is /lib/modules, read-only, which kind mounts into every node anyway, so
// Docker creates no directory on the host.
type Mark struct {
	// Lab is the name of the lab.
	Lab string
	// Slot is the number of the lab's slot in the Docker network; see package lb.
	Slot int
}

const (
	markRoot = "/etc/ambientlab/"
	slotPart = "/slot-"
)

// MarkSource is the host path that is mounted at MountPoint.
const MarkSource = "/lib/modules"

// MountPoint returns the path in the container that encodes the mark, such as /etc/ambientlab/ambient/slot-0.
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
