// Package netns opens sockets inside another network namespace.
//
// A socket belongs to the namespace of the thread that created it, so only its creation has to run there: a goroutine
// locks itself to its thread, enters the namespace, creates the socket and returns. Accepting, connecting and copying
// then run on any thread.
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

// ID identifies a namespace: two files with the same ID are the same namespace.
type ID struct {
	Dev, Inode uint64
}

// Home opens the namespace that the process started in; threads return to it from every Namespace.
func Home() (*os.File, error) {
	// Not /proc/self, which is the process's first thread: Do may have left that one in another namespace.
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the proxy's own network namespace: %w", err)
	}
	return f, nil
}

// New takes ownership of file, and returns an error if it is not a network namespace: istio-cni sends a descriptor, and
// setns on a wrong one could move a thread to another kind of namespace.
func New(home, file *os.File) (*Namespace, error) {
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return nil, fmt.Errorf("reading the type of the namespace: %w", err)
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

// Close closes the descriptor. Sockets that were created in the namespace stay usable.
func (n *Namespace) Close() error { return n.file.Close() }

// Clone opens the namespace a second time.
func (n *Namespace) Clone() (*Namespace, error) {
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("copying the descriptor of a network namespace: %w", err)
	}
	return &Namespace{home: n.home, file: os.NewFile(uintptr(fd), n.file.Name()), id: n.id}, nil
}

// Do runs f on a thread inside the namespace. Goroutines that f starts run outside it.
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
		// A process in a user namespace may not enter a network namespace that is owned by another one, such as the
		// host's. The thread then cannot return. A goroutine that ends while it is locked ends its thread, so no other
		// goroutine ever runs on it.
		if unix.Setns(int(n.home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
