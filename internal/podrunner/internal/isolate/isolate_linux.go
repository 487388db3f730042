// Package isolate puts the program into namespaces of its own, where it may make network namespaces, links and mounts
// although its user may not, and where its end is the end of every process that it has started.
package isolate

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is the environment variable that tells the program that it is inside.
const marker = "PODRUNNER_INSIDE"

// Inside tells whether the program runs in namespaces of its own.
func Inside() bool { return os.Getenv(marker) != "" }

// Run starts the program again, with the same arguments, in a PID namespace and a mount namespace, and waits for its
// end. Where the user is not root, or root may not do it, a user namespace comes first, in which the user is root. The
// network namespace stays the host's. The caller must be the program's first goroutine, locked to its thread: the
// kernel kills the process inside when that thread ends, and with it, as the first of its PID namespace, all others.
//
// The result is the exit code of the program inside. The error is for one that could not be started.
func Run() (int, error) {
	kinds := []bool{true}
	if os.Geteuid() == 0 {
		kinds = []bool{false, true}
	}
	var errs []error
	for _, user := range kinds {
		command, err := start(user)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return wait(command)
	}
	return 0, joined(errs)
}

func start(user bool) (*exec.Cmd, error) {
	command := exec.Command("/proc/self/exe", os.Args[1:]...)
	command.Args[0] = os.Args[0]
	command.Env = append(os.Environ(), marker+"=1")
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
	}
	what := "clone(CLONE_NEWPID|CLONE_NEWNS)"
	if user {
		what = "clone(CLONE_NEWUSER|CLONE_NEWPID|CLONE_NEWNS)"
		command.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	if err := command.Start(); err != nil {
		// The path in the error says nothing: it is the program itself.
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return command, nil
}

// wait passes signals on and returns the exit code. A program that a signal ended has the shell's code for it.
func wait(command *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case received := <-signals:
			_ = command.Process.Signal(received)
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
					return 128 + int(status.Signal()), nil
				}
				return exit.ExitCode(), nil
			}
			return 0, err
		}
	}
}

// Settle makes the mounts of the program inside private: none of them reaches the host.
func Settle() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	return nil
}

// joined puts errors on one line.
func joined(errs []error) error {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}
