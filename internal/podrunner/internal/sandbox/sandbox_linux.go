package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ambientlab/podrunner/internal/netns"
	"ambientlab/podrunner/internal/network"
)

// Sandbox is a pod's network and the folder in which its containers' roots and volumes are.
type Sandbox struct {
	uid      string
	dir      string
	net      *network.Switch
	services netip.Prefix
	ns       *netns.Namespace
}

// New makes the network of a pod. dir is the pod's own folder; what an earlier runner left in it is removed.
func New(
	uid, hostname, dir string,
	address netip.Addr,
	shared *network.Switch,
	services netip.Prefix,
) (*Sandbox, error) {
	if err := remove(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ns, err := netns.New(hostname)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{uid: uid, dir: dir, net: shared, services: services, ns: ns}
	if err := shared.Connect(ns, uid, address); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting the pod: %w", err), s.Close())
	}
	return s, nil
}

// Dir is the pod's folder.
func (s *Sandbox) Dir() string { return s.dir }

// Network is the pod's network namespace, to be handed to the node proxy.
func (s *Sandbox) Network() *os.File { return s.ns.File() }

// Redirect leads the pod's traffic to the node proxy.
func (s *Sandbox) Redirect() error { return network.Redirect(s.ns) }

// SetServices makes the pod reach Services without the node proxy.
func (s *Sandbox) SetServices(services []network.Service) error {
	return network.SetServices(s.ns, s.services, services)
}

// Dial connects to a port of the pod's loopback.
func (s *Sandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	return s.ns.Dial(ctx, nil, fmt.Sprintf("127.0.0.1:%d", port))
}

// Close removes the pod's network and its folder. Its processes must have ended.
func (s *Sandbox) Close() error {
	err := s.net.Disconnect(s.uid)
	s.ns.Close()
	return errors.Join(err, remove(s.dir))
}

// root is where a container's root is.
func (s *Sandbox) root(container string) string {
	return filepath.Join(s.dir, "containers", container, "root")
}

// MakeRoot lays out the root of a container, in place of an earlier one.
func (s *Sandbox) MakeRoot(container string, root Root) error {
	dir := s.root(container)
	if err := remove(dir); err != nil {
		return err
	}
	if err := makeRoot(dir, root); err != nil {
		return fmt.Errorf("laying out the root of container %s: %w", container, err)
	}
	return nil
}

// WriteFile replaces a file in a container's root at once.
func (s *Sandbox) WriteFile(container, path, content string) error {
	target := filepath.Join(s.root(container), path)
	if err := os.WriteFile(target+".new", []byte(content), 0o644); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// Process is a running program.
type Process struct {
	command *exec.Cmd
	ended   chan struct{}
	err     error
}

// Start starts a program as the first process of a PID namespace of its own: when it ends, so does everything that it
// has started.
func (s *Sandbox) Start(c Command) (*Process, error) {
	root := s.root(c.Container)
	path, err := lookPath(root, c.Args[0], c.Env, c.Dir)
	if err != nil {
		return nil, err
	}
	command := &exec.Cmd{
		Path: path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Chroot: root, Setsid: true, Setctty: c.Terminal, Cloneflags: unix.CLONE_NEWPID,
		},
		// A program that has ended, but whose output something else still holds open, has ended.
		WaitDelay: time.Second,
	}
	if command.Dir == "" {
		command.Dir = "/"
	}
	if err := s.ns.Do(command.Start); err != nil {
		return nil, fmt.Errorf("starting %s: %w", path, err)
	}
	p := &Process{command: command, ended: make(chan struct{})}
	go func() {
		p.err = command.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's number in the runner's PID namespace.
func (p *Process) PID() int { return p.command.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Exit tells how the process has ended: its exit code, and the signal that ended it or 0. The exit code of a process
// that a signal ended is the shell's: 128 and the signal's number.
func (p *Process) Exit() (code int, signal int) {
	<-p.ended
	state := p.command.ProcessState
	if state == nil {
		return 255, 0
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), int(status.Signal())
	}
	return state.ExitCode(), 0
}

// Signal sends a signal to the process. That it has ended is no error.
func (p *Process) Signal(signal os.Signal) error {
	if err := p.command.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// lookPath finds a program in a root as execvp(3) does.
func lookPath(root, name string, env []string, dir string) (string, error) {
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			name = filepath.Join("/", dir, name)
		}
		return name, executable(root, name)
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, variable := range env {
		if value, is := strings.CutPrefix(variable, "PATH="); is {
			search = value
		}
	}
	for _, folder := range filepath.SplitList(search) {
		path := filepath.Join("/", folder, name)
		if executable(root, path) == nil {
			return path, nil
		}
	}
	return "", &exec.Error{Name: name, Err: exec.ErrNotFound}
}

func executable(root, path string) error {
	info, err := os.Stat(filepath.Join(root, path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &exec.Error{Name: path, Err: fs.ErrNotExist}
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return &exec.Error{Name: path, Err: fs.ErrPermission}
	}
	return nil
}

// DialAddress connects from the pod to an address.
func (s *Sandbox) DialAddress(ctx context.Context, address string) (net.Conn, error) {
	return s.ns.Dial(ctx, nil, address)
}

// Listen listens in the pod.
func (s *Sandbox) Listen(address string) (net.Listener, error) { return s.ns.Listen(address) }
