// Package netns makes sockets inside another network namespace.
//
// A socket belongs for ever to the namespace of the thread that made it, so only its creation has to happen there:
// a goroutine locks itself to its thread, enters the namespace, makes the socket and comes back. Accepting, connecting
// and copying then run anywhere.
package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is an open network namespace. It is safe for concurrent use until Close.
type Namespace struct {
	home *os.File
	file *os.File
	id   ID
}

// ID tells namespaces apart: two files with the same ID are the same namespace.
type ID struct {
	Dev, Inode uint64
}

// Home opens the namespace that the process started in; every Namespace goes back to it.
func Home() (*os.File, error) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the proxy's own network namespace: %w", err)
	}
	return f, nil
}

// New takes ownership of file, which must be a network namespace, and refuses anything else: what istio-cni sends is
// a bare descriptor, and setns on a wrong one could move a thread somewhere unexpected.
func New(home, file *os.File) (*Namespace, error) {
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, fmt.Errorf("asking for the type of the namespace: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		return nil, fmt.Errorf("descriptor is a namespace of type %#x, not a network namespace", kind)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("identifying the network namespace: %w", err)
	}
	return &Namespace{home: home, file: file, id: ID{Dev: uint64(st.Dev), Inode: st.Ino}}, nil
}

// ID returns the identity of the namespace.
func (n *Namespace) ID() ID { return n.id }

// Close gives the descriptor back. Sockets made in the namespace stay usable.
func (n *Namespace) Close() error { return n.file.Close() }

// Clone opens the namespace once more.
func (n *Namespace) Clone() (*Namespace, error) {
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copying the descriptor of a network namespace: %w", err)
	}
	return &Namespace{home: n.home, file: os.NewFile(uintptr(fd), n.file.Name()), id: n.id}, nil
}

// Do runs f on a thread inside the namespace. f must not start goroutines that it expects to be there too.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("entering the network namespace: %w", err)
			return
		}
		err := f()
		if back := unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread is lost in the pod's namespace. Ending the goroutine while it is locked ends the thread,
			// so nothing else ever runs on it.
			done <- fmt.Errorf("leaving the network namespace: %w", back)
			return
		}
		runtime.UnlockOSThread()
		done <- err
	}()
	return <-done
}
