//go:build e2e && e2efull

package e2e

import (
	"archive/zip"
	"bufio"
	"encoding/xml"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/cluster"
)

// TestRun has sm:run end in each of its ways, on kind and without Docker: exit codes, what was collected, and that
// nothing is left.
func TestRun(t *testing.T) {
	for provider, logs := range map[string]string{
		cluster.ProviderKind: "kubelet.log", cluster.ProviderEmbedded: "podrunner.log",
	} {
		t.Run(provider, func(t *testing.T) { testRun(t, provider, logs) })
	}
}

func testRun(t *testing.T, provider, logs string) {
	root := t.TempDir()
	in := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
	l := newLab(t, "lab-run", "SM_PROVIDER="+provider, "SM_ADDONS=none", "SM_DUMP="+in("dump"),
		"SM_REPORT="+in("report"), "TMPDIR="+in("tmp"), "XDG_STATE_HOME="+in("state"), "KUBECONFIG="+in("kubeconfig"))
	l.kubeconfig = in("kubeconfig")
	if provider == cluster.ProviderKind {
		l.env = append(l.env, "SM_WORKERS=0")
	} else {
		l.env = append(l.env, "SM_BUNDLE=", "SM_PACKETS=on")
	}
	if err := os.Mkdir(in("tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	before := l.leaks(t)
	t.Cleanup(func() { l.try(t, "sm:delete") })
	const sleeps = "echo the command runs; exec sleep 1200"
	for _, c := range []struct {
		name     string
		env      []string
		args     []string
		signal   syscall.Signal
		code     int
		evidence bool
	}{
		{
			name: "true", args: []string{
				"-lessons=waypoint", "--", "sh", "-c",
				`curl -fsS -o /dev/null -H "Host: $LAB_HOST" "$LAB_URL/headers" && [ -s "$KUBECONFIG" ]`,
			},
		},
		{name: "false", args: []string{"-lessons=none", "--", "false"}, code: 1, evidence: true},
		{name: "its exit code", args: []string{"-lessons=none", "--", "sh", "-c", "exit 7"}, code: 7, evidence: true},
		{
			name: "past the reserve", env: []string{"SM_TIMEOUT=3m", "SM_RESERVE=90s"},
			args: []string{"-lessons=none", "--", "sh", "-c", sleeps}, code: 90, evidence: true,
		},
		{
			name: "SIGTERM", args: []string{"-lessons=none", "--", "sh", "-c", sleeps},
			signal: syscall.SIGTERM, code: 130, evidence: true,
		},
		{
			name: "SIGINT", args: []string{"-lessons=none", "--", "sh", "-c", sleeps},
			signal: syscall.SIGINT, code: 130, evidence: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dump := in("dump", "dump-lab-run-run.zip")
			_ = os.Remove(dump)
			cmd := l.command(t.Context(), append([]string{"sm:run"}, c.args...)...)
			cmd.Env = append(cmd.Env, c.env...)
			if got := signalled(t, cmd, c.signal); got != c.code {
				t.Errorf("exit code %d, want %d", got, c.code)
			}
			if after := l.leaks(t); after != before {
				t.Errorf("before there was %s, after it there is %s", before, after)
			}
			if left := left(t, root); left != "" {
				t.Errorf("left: %s", left)
			}
			junitFailed(t, in("report", "junit-sm-run.xml"), c.code != 0)
			if files := unzipped(t, dump); (files != nil) != c.evidence {
				t.Errorf("evidence was collected: %t, want %t", files != nil, c.evidence)
			} else if c.evidence && !strings.Contains(files["index.html"], logs) {
				t.Errorf("the page does not have %s", logs)
			}
		})
	}
}

// signalled runs a command to its end, and gives its exit code. A signal, unless 0, is sent to it when its own command
// runs.
func signalled(t *testing.T, cmd *exec.Cmd, signal syscall.Signal) int {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var sent time.Time
	for lines := bufio.NewScanner(out); lines.Scan(); {
		t.Log(lines.Text())
		if signal != 0 && sent.IsZero() && strings.Contains(lines.Text(), "the command runs") {
			sent = time.Now()
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		}
	}
	_ = cmd.Wait() // the exit code says it
	took := time.Since(start)
	if signal != 0 {
		t.Logf("it ended %s after the signal", time.Since(sent).Round(100*time.Millisecond))
	}
	t.Logf("exit code %d after %s", cmd.ProcessState.ExitCode(), took.Round(100*time.Millisecond))
	return cmd.ProcessState.ExitCode()
}

// left names the files that a lab has left in its folder, but for what it is to leave, and the processes that have to
// do with the folder.
func left(t *testing.T, root string) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		relative, _ := filepath.Rel(root, path) // both are absolute
		switch {
		case err != nil:
			return err
		case relative == "dump" || relative == "report":
			return fs.SkipDir
		case !entry.IsDir() && relative != "kubeconfig", filepath.Dir(relative) == "tmp":
			found = append(found, relative)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"cmdline", "environ", "mountinfo"} {
		processes, err := filepath.Glob("/proc/[0-9]*/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range processes {
			raw, err := os.ReadFile(path) // fails where the process has ended
			if err == nil && strings.Contains(string(raw), root) {
				found = append(found, fmt.Sprintf("process %s", path))
			}
		}
	}
	return strings.Join(found, ", ")
}

// junitFailed wants a JUnit file to say that something failed, or that nothing did.
func junitFailed(t *testing.T, path string, want bool) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found struct {
		Suites []struct {
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(raw, &found); err != nil {
		t.Fatal(err)
	}
	failed := false
	for _, suite := range found.Suites {
		failed = failed || suite.Failures+suite.Errors > 0
	}
	if failed != want {
		t.Errorf("JUnit says that it failed: %t, want %t", failed, want)
	}
}

// unzipped gives the files of a dump, or nil where there is no dump.
func unzipped(t *testing.T, path string) map[string]string {
	t.Helper()
	archive, err := zip.OpenReader(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	files := map[string]string{}
	for _, file := range archive.File {
		content, err := fs.ReadFile(archive, file.Name)
		if err != nil {
			t.Fatal(err)
		}
		files[file.Name] = string(content)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("dump: %d KiB, %d files; missing: %s", info.Size()>>10, len(files), files["missing.txt"])
	if info.Size() > 20<<20 {
		t.Errorf("the dump has %d bytes", info.Size())
	}
	return files
}
