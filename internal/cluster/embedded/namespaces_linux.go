package embedded

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// tryNamespaces starts a program in namespaces as the pod runner does, and in a network namespace as its pods are. It
// tries less than the pod runner's own check, and needs no program that is built first.
func tryNamespaces(ctx context.Context) trialResult {
	kinds := []bool{true}
	if os.Geteuid() == 0 {
		kinds = []bool{false, true} // root may do without a user namespace
	}
	var failed []string
	for _, user := range kinds {
		command := exec.CommandContext(ctx, "/bin/sh", "-c", ":")
		command.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		}
		if user {
			command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
			command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
		}
		err := command.Run()
		if err == nil {
			return trialResult{}
		}
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		failed = append(failed, err.Error())
	}
	return trialResult{Step: "namespaces", Error: strings.Join(failed, "; ")}
}
