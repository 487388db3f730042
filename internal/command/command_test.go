//go:build unix

package command

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

var errStop = errors.New("interrupted by the test")

// interrupted ends the context of a run once a file that matches a pattern is there.
func interrupted(t *testing.T, run func(context.Context) error, pattern string) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			break
		}
		select {
		case err := <-done:
			t.Fatalf("it ended before it was interrupted: %v", err)
		case <-tick.C:
		}
	}
	cancel(errStop)
	if err := <-done; !errors.Is(err, errStop) {
		t.Fatalf("got %v", err)
	}
}

// TestInterruptedCommand wants a command interrupted with a signal that it can handle, and what it started ended with
// it.
func TestInterruptedCommand(t *testing.T) {
	dir := t.TempDir()
	// A shell lets what it starts in the background ignore interrupts.
	script := `trap 'touch tidied; exit 1' INT; sleep 600 >/dev/null 2>&1 & echo $! >new; mv new pid; wait`
	command := Command{Dir: dir, Name: "/bin/sh", Args: []string{"-c", script}}
	interrupted(t, func(ctx context.Context) error {
		_, err := Run(ctx, command)
		return err
	}, filepath.Join(dir, "pid"))
	if _, err := os.Stat(filepath.Join(dir, "tidied")); err != nil {
		t.Errorf("it was not interrupted: %v", err)
	}
	waitEnded(t, filepath.Join(dir, "pid"), 10*time.Second)
}

// waitEnded waits until the process whose ID is in a file has ended.
func waitEnded(t *testing.T, file string, limit time.Duration) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 1 {
		t.Fatalf("pid %q, %v", raw, err)
	}
	for deadline := time.Now().Add(limit); ended(pid) != nil; <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("what it started still runs: %v", ended(pid))
		}
	}
}

// TestString wants the shell to read the words of a command as they are.
func TestString(t *testing.T) {
	words := []string{"", "a b", "it's", "x;y", "*", "$HOME", "{{.ID}}", "k=v", "-f"}
	line := Command{Name: "printf", Args: append([]string{"%s\n"}, words...)}.String()
	out, err := exec.Command("/bin/sh", "-c", line).Output()
	if want := strings.Join(words, "\n") + "\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
}

// ended gives an error while a process runs. Where no process adopts orphans, an orphan that ended stays a zombie.
func ended(pid int) error {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	if raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil &&
		strings.Contains(string(raw), ") Z ") {
		return nil
	}
	return errors.New("process " + strconv.Itoa(pid))
}
