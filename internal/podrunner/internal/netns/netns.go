//go:build linux

// Package netns makes network namespaces and works inside them.
//
// A socket belongs to the network namespace of the thread that creates it, and a process to that of the thread that
// starts it. So only the creation has to happen in the namespace: Do runs a function on a thread of its own that has
// entered the namespace. An unprivileged process cannot return to the namespace that it came from, so that thread ends
// with the function.
package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with a UTS namespace (the host name). It exists until Close is called and
// the last process and socket in it are gone. Its methods may be called concurrently.
type Namespace struct {
	network, uts *os.File
}

// New makes a namespace whose host name is hostname.
func New(hostname string) (*Namespace, error) {
	n := &Namespace{}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("unshare(CLONE_NEWNET|CLONE_NEWUTS): %w", err)
		}
		if err := unix.Sethostname([]byte(hostname)); err != nil {
			return fmt.Errorf("sethostname: %w", err)
		}
		if n.network, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		n.uts, err = os.Open("/proc/thread-self/ns/uts")
		return err
	})
	if err != nil {
		n.Close()
		return nil, fmt.Errorf("making a network namespace: %w", err)
	}
	return n, nil
}

// File is the open network namespace, to be handed to another process. It stays the Namespace's.
func (n *Namespace) File() *os.File { return n.network }

// Close gives the namespace back.
func (n *Namespace) Close() {
	for _, file := range []*os.File{n.network, n.uts} {
		if file != nil {
			_ = file.Close()
		}
	}
}

// Do runs f on a thread inside the namespace. Goroutines that f starts are not inside.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.network.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering the network namespace: %w", err)
		}
		if err := unix.Setns(int(n.uts.Fd()), unix.CLONE_NEWUTS); err != nil {
			return fmt.Errorf("entering the UTS namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with f: the goroutine ends while it is locked to the thread.
func onThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}

// Listen opens a TCP listener in the namespace.
func (n *Namespace) Listen(address string) (listener net.Listener, err error) {
	err = n.Do(func() error {
		listener, err = net.Listen("tcp4", address)
		return err
	})
	return listener, err
}

// Dial connects by TCP from inside the namespace, from the address source unless it is nil.
func (n *Namespace) Dial(ctx context.Context, source net.IP, address string) (conn net.Conn, err error) {
	dialer := net.Dialer{}
	if source != nil {
		dialer.LocalAddr = &net.TCPAddr{IP: source}
	}
	err = n.Do(func() error {
		conn, err = dialer.DialContext(ctx, "tcp4", address)
		return err
	})
	return conn, err
}
