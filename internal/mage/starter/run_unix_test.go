//go:build unix

package starter

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// SIGTERM reaches the compiled program, and its exit code arrives.
func TestSignalIsPassedOn(t *testing.T) {
	dir := t.TempDir()
	program, started := filepath.Join(dir, "program"), filepath.Join(dir, "started")
	script := "#!/bin/sh\ntrap 'exit 42' TERM\ntouch " + started + "\nwhile :; do sleep 0.05; done\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() {
		got, err := Run(exec.Command(program))
		if err != nil {
			t.Error(err)
		}
		code <- got
	}()
	for {
		if _, err := os.Stat(started); err == nil {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != 42 {
		t.Errorf("exit code %d, want 42", got)
	}
}
