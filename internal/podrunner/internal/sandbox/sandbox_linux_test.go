package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/isolate"
	"ambientlab/podrunner/internal/network"
)

func init() { runtime.LockOSThread() } // see isolate.Run

// obstacle is why namespaces cannot be made here.
var obstacle error

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "act" {
		os.Exit(act(os.Args[2:]))
	}
	if !isolate.Inside() {
		code, err := isolate.Run()
		if err == nil {
			os.Exit(code)
		}
		obstacle = err
	} else if err := isolate.Settle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// act is what this program does in a container.
func act(args []string) int {
	switch args[0] {
	case "exit":
		return len(args[1])
	case "cat": // files, or standard input
		if len(args) == 1 {
			_, _ = io.Copy(os.Stdout, os.Stdin)
		}
		for _, path := range args[1:] {
			content, err := os.ReadFile(path)
			if err != nil {
				fmt.Println(err)
				return 1
			}
			_, _ = os.Stdout.Write(content)
		}
	case "write":
		if err := os.WriteFile(args[1], []byte("written"), 0o600); err != nil {
			fmt.Println(err)
			return 1
		}
	case "where":
		dir, _ := os.Getwd()
		host, _ := os.Hostname()
		fmt.Print(dir, " ", host, " ", os.Getpid(), " ", os.Getenv("NAME"))
	case "sleep":
		<-time.After(time.Minute)
	case "parent": // starts a child that outlives it, unless the kernel ends it
		child := exec.Command("/bin/act", "act", "sleep")
		if err := child.Start(); err != nil {
			return 1
		}
		_ = os.WriteFile("/shared/started", nil, 0o600)
		<-time.After(time.Minute)
	}
	return 0
}

// pod is a sandbox with one container, c, in which this program is /bin/act.
func pod(t *testing.T, mounts ...Mount) *Sandbox {
	t.Helper()
	if obstacle != nil {
		t.Skipf("this machine lets no namespaces be made, so no pod can be run: %v", obstacle)
	}
	pods, services := netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")
	shared, err := network.NewSwitch(pods, services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shared.Close)
	dir := filepath.Join(t.TempDir(), "pod")
	s, err := New("0123-4567", "the-host", dir, netip.MustParseAddr("10.244.0.2"), shared, services)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("the folder is left: %v", err)
		}
		if left, err := mountsIn(dir); err != nil || len(left) > 0 {
			t.Errorf("mounts are left: %v, %v", left, err)
		}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image := config.Image{
		Libraries: true, Files: []config.File{{Path: "/bin/act", Source: self}},
		Directories: []string{"/own"},
	}
	if err := s.MakeRoot("c",
		Root{Image: image, Mounts: mounts, Files: map[string]string{"/etc/hosts": "names"}}); err != nil {
		t.Fatal(err)
	}
	return s
}

// does runs a command to its end.
func does(t *testing.T, s *Sandbox, c Command) (output string, code int) {
	t.Helper()
	var out bytes.Buffer
	c.Container, c.Stdout, c.Stderr = "c", &out, &out
	process, err := s.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	code, _ = process.Exit()
	return out.String(), code
}

func TestProcess(t *testing.T) {
	volume := t.TempDir()
	if err := os.WriteFile(filepath.Join(volume, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := pod(t, Mount{Source: volume, Path: "/data/inner", ReadOnly: true}, Mount{Source: volume, Path: "/data2"})
	for name, c := range map[string]struct {
		command Command
		output  string
		code    int
	}{
		"exit code": {Command{Args: []string{"/bin/act", "act", "exit", "xxx"}}, "", 3},
		"found in PATH": {
			Command{Args: []string{"act", "act", "exit", ""}, Env: []string{"PATH=/nothing:/bin"}},
			"", 0,
		},
		"files of the root": {
			Command{Args: []string{"/bin/act", "act", "cat", "/etc/hosts", "/data/inner/file", "/data2/file"}},
			"namescontentcontent", 0,
		},
		"standard input": {
			Command{Args: []string{"/bin/act", "act", "cat"}, Stdin: strings.NewReader("in")},
			"in",
			0,
		},
		"read-only volume": {
			Command{Args: []string{"/bin/act", "act", "write", "/data/inner/x"}},
			"open /data/inner/x: read-only file system\n", 1,
		},
		"writable volume": {Command{Args: []string{"/bin/act", "act", "write", "/data2/x"}}, "", 0},
		"no way out": {
			Command{Args: []string{"/bin/act", "act", "cat", s.Dir()}},
			"open " + s.Dir() + ": no such file or directory\n", 1,
		},
		"where it is": {
			Command{Args: []string{"/bin/act", "act", "where"}, Dir: "/own", Env: []string{"NAME=x"}},
			"/own the-host 1 x", 0,
		},
		"its output, by path": {Command{Args: []string{"/bin/act", "act", "write", "/dev/stdout"}}, "written", 0},
	} {
		if output, code := does(t, s, c.command); output != c.output || code != c.code {
			t.Errorf("%s: %q, exit code %d", name, output, code)
		}
	}
	if _, err := s.Start(Command{Container: "c", Args: []string{"nothing"}}); err == nil {
		t.Error("a program that does not exist was started")
	}
	if err := s.WriteFile("c", "etc/hosts", "other names"); err != nil {
		t.Fatal(err)
	}
	if output, _ := does(t, s,
		Command{Args: []string{"/bin/act", "act", "cat", "/etc/hosts"}}); output != "other names" {
		t.Errorf("after a change: %q", output)
	}
}

// TestEnd kills the first process of a container: the one that it started ends with it.
func TestEnd(t *testing.T) {
	shared := t.TempDir()
	s := pod(t, Mount{Source: shared, Path: "/shared"})
	process, err := s.Start(
		Command{Container: "c", Args: []string{"/bin/act", "act", "parent"}, Stdout: io.Discard, Stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := os.Stat(filepath.Join(shared, "started")); err == nil {
			break
		}
	}
	children := func() string {
		raw, _ := os.ReadFile(
			fmt.Sprintf("/proc/%d/task/%d/children", outer(t, process.PID()), outer(t, process.PID())))
		return strings.TrimSpace(string(raw))
	}
	child := children()
	if child == "" {
		t.Fatal("no child was started")
	}
	if err := process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, signal := process.Exit(); code != 137 || signal != int(syscall.SIGKILL) {
		t.Errorf("exit code %d, signal %d", code, signal)
	}
	for ctx.Err() == nil {
		state, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
	}
	t.Error("the child still runs")
}

// outer gives the number that /proc, which is mounted outside of this PID namespace, has for a process of it.
func outer(t *testing.T, pid int) int {
	t.Helper()
	statuses, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range statuses {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			numbers := strings.Fields(line)
			if len(numbers) > 3 && numbers[0] == "NSpid:" && numbers[len(numbers)-2] == fmt.Sprint(pid) &&
				numbers[len(numbers)-1] == "1" {
				var found int
				_, _ = fmt.Sscan(numbers[1], &found)
				return found
			}
		}
	}
	return 0
}

// TestRemove deletes nothing as long as something is mounted in a folder that it cannot unmount, and never what is
// mounted there.
func TestRemove(t *testing.T) {
	if obstacle != nil {
		t.Skipf("this machine lets no namespaces be made: %v", obstacle)
	}
	source, dir := t.TempDir(), t.TempDir()
	kept := filepath.Join(source, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a", "/a/b", "/with space"} {
		if err := bind(dir, Mount{Source: source, Path: path}); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a mounted file was deleted: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(source, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := bind(dir, Mount{Source: source, Path: "/link/x"}); err == nil {
		t.Error("a mount through a link was made")
	}
}
