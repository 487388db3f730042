package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUserNamespace runs in a user namespace, but in the network namespace of its parent process. Threads that enter a
// pod's namespace cannot return from it there, and must not run other goroutines.
func TestUserNamespace(t *testing.T) {
	const child = "NODEPROXY_NETNS_CHILD"
	if os.Getenv(child) != "" {
		testEnter(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUserNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		t.Skipf("this host permits no user namespaces: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func testEnter(t *testing.T) {
	home, err := Home()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	own, err := New(nil, home)
	if err != nil {
		t.Fatal(err)
	}
	pod := newNamespace(t, home)
	defer pod.Close()
	if pod.ID() == own.ID() {
		t.Fatal("there is no new namespace")
	}
	for range 20 {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := pod.Do(func() error { return isIn(pod.ID()) }); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := isIn(own.ID()); err != nil {
					t.Errorf("outside: %v", err)
				}
			})
		}
		wg.Wait()
	}
	again, err := Home()
	if err != nil {
		t.Fatal(err)
	}
	if ns, err := New(nil, again); err != nil || ns.ID() != own.ID() {
		t.Errorf("Home opens another namespace later: %v", err)
	}
	l, err := pod.Listen(15008)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// newNamespace creates a network namespace that belongs to the user namespace.
func newNamespace(t *testing.T, home *os.File) *Namespace {
	t.Helper()
	type result struct {
		file *os.File
		err  error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- result{err: err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- result{f, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	ns, err := New(home, r.file)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// isIn returns an error if the calling thread is in another namespace.
func isIn(want ID) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return err
	}
	if got := (ID{Dev: uint64(st.Dev), Inode: st.Ino}); got != want {
		return fmt.Errorf("thread is in namespace %v, want %v", got, want)
	}
	return nil
}
