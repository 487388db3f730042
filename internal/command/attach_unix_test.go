//go:build unix

package command

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func shell(script string, env ...string) Command {
	return Command{Name: "sh", Args: []string{"-c", script}, Env: env}
}

func TestAttach(t *testing.T) {
	for script, want := range map[string]int{
		"true": 0, "exit 7": 7, "kill -TERM $$": 143, "kill -KILL $$": 137, `test "$MINE" = "a b"`: 0,
	} {
		if code, err := Attach(t.Context(), shell(script, "MINE=a b"), false); code != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", script, code, err, want)
		}
	}
	if _, err := Attach(t.Context(), Command{Name: filepath.Join(t.TempDir(), "none")}, false); err == nil {
		t.Error("a program that does not exist was run")
	}
}

// A command that is stopped ends with the processes that it started, and can clean up before.
func TestAttachStops(t *testing.T) {
	dir := t.TempDir()
	child, cleaned := filepath.Join(dir, "child"), filepath.Join(dir, "cleaned")
	script := "trap 'touch " + cleaned + "; exit 0' TERM; sleep 1000 & echo $! >" + child + ".new; " +
		"mv " + child + ".new " + child + "; wait"
	interrupted(t, func(ctx context.Context) error {
		_, err := Attach(ctx, shell(script), false)
		return err
	}, child)
	if _, err := os.Stat(cleaned); err != nil {
		t.Error("the command did not get SIGTERM")
	}
	waitEnded(t, child, 30*time.Second)
}
