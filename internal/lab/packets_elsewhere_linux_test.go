package lab

import (
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ambientlab/internal/source"
)

// ownNetwork is the variable by which TestPacketsElsewhere tells itself that it is in a network of its own.
const ownNetwork = "AMBIENTLAB_TEST_INSIDE"

// TestPacketsElsewhere runs a lab on a machine on which 10.0.0.0/8 leads elsewhere, as a VPN's route does: the
// addresses of pods and Services are of that range. On its nodes a ztunnel of the user's runs, a copy of the Go node
// proxy.
func TestPacketsElsewhere(t *testing.T) {
	if os.Getenv(ownNetwork) == "" {
		b := newBench(t, "packets-elsewhere", "SM_PACKETS=on")
		b.installOrSkip() // what is fetched and built cannot be had inside
		b.do("delete", b.Delete)
		inItsOwnNetwork(t)
		return
	}
	occupy(t, "10.0.0.1", "255.0.0.0")
	ztunnel := filepath.Join(t.TempDir(), "a-ztunnel")
	copyNodeProxy(t, ztunnel)
	b := newBench(t, "packets-elsewhere", "SM_PACKETS=on", "SM_ZTUNNEL="+ztunnel)
	b.installOrSkip()
	b.do("apps", b.apps)
	b.answers(http.MethodGet, b.hostAddress(), http.StatusOK)
	b.do("waypoint", b.waypoint)
	b.do("fault", b.fault)
	b.do("authz", b.authz)
	said := b.do("verify", b.verify)
	says(t, "verify", said, "claims proven in ", "upstream Envoy")
	if strings.Contains(said, "Go node proxy") {
		t.Errorf("the Go node proxy is named as a substitute, and a ztunnel of the user's runs:\n%s", said)
	}
	want, err := os.Stat(ztunnel)
	if err != nil {
		t.Fatal(err)
	}
	running := 0
	for _, pid := range descendants(t, b.pid("podrunner")) {
		if is, err := os.Stat(procPath(pid, "exe")); err == nil && os.SameFile(is, want) {
			running++
		}
	}
	if running == 0 {
		t.Error("the user's ztunnel does not run")
	}
	b.do("delete", b.Delete)
}

// inItsOwnNetwork runs the test that calls it once more, in a network namespace.
func inItsOwnNetwork(t *testing.T) {
	t.Helper()
	again := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), ownNetwork+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		again.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		again.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		again.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
}

// occupy gives the loopback device of a new network namespace an address of a whole range, which is then on this
// machine, and starts it.
func occupy(t *testing.T, address, mask string) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(socket) }()
	set := func(device string, request uint, fill func(*unix.Ifreq) error) {
		t.Helper()
		asked, err := unix.NewIfreq(device)
		if err == nil {
			err = fill(asked)
		}
		if err == nil {
			err = unix.IoctlIfreq(socket, request, asked)
		}
		if err != nil {
			t.Fatalf("setting up %s: %v", device, err)
		}
	}
	up := func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }
	inet := func(text string) func(*unix.Ifreq) error {
		return func(r *unix.Ifreq) error { return r.SetInet4Addr(netip.MustParseAddr(text).AsSlice()) }
	}
	set("lo", unix.SIOCSIFFLAGS, up)
	set("lo:1", unix.SIOCSIFADDR, inet(address))
	set("lo:1", unix.SIOCSIFNETMASK, inet(mask))
}

// copyNodeProxy builds the Go node proxy and copies it.
func copyNodeProxy(t *testing.T, to string) {
	t.Helper()
	builder, err := source.New(source.Options{Progress: func(string, string) {}})
	if err != nil {
		t.Fatal(err)
	}
	path, err := builder.Binary(t.Context(), "nodeproxy")
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	into, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err == nil {
		_, err = io.Copy(into, from)
	}
	if err == nil {
		err = into.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
