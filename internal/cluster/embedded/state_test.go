package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLastLines gives the end of a log, and of a program that panicked what it said before its stack.
func TestLastLines(t *testing.T) {
	for text, want := range map[string]string{
		"one\ntwo\nthree\n": "two\nthree",
		"began\nerror: no space left on device\npanic: creating the WAL\n\n" +
			"goroutine 1 [running]:\nmain.main()\n\tx.go:1\n": "error: no space left on device\n" +
			"panic: creating the WAL",
		"goroutine 7 [running]:\nmain.main()\n": "goroutine 7 [running]:\nmain.main()",
		"":                                      "",
	} {
		path := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastLines(path, 2); got != want {
			t.Errorf("%q ends with %q, want %q", text, got, want)
		}
	}
}
