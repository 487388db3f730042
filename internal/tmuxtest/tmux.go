// Package tmuxtest presses keys on a terminal of tmux and reads its screen, for tests.
package tmuxtest

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Terminal is a terminal with a shell, whose prompt is "ready>".
type Terminal struct {
	t      *testing.T
	socket string
}

// New opens a terminal of a size, in characters. It is closed with the test, which is skipped where tmux is missing.
func New(t *testing.T, width, height int) Terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Skip("tmux, which this test needs to press keys on a terminal, is not installed")
	}
	m := Terminal{t, filepath.Join(t.TempDir(), "tmux")}
	m.Run("-f", "/dev/null", "new-session", "-d", "-s", "w", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height),
		"env PS1='ready> ' sh")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", m.socket, "kill-server").Run() })
	m.Shows("ready>")
	return m
}

// Run runs a command of tmux and gives its output.
func (m Terminal) Run(args ...string) string {
	m.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", m.socket}, args...)...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// Press presses keys, named as tmux names them; other words are typed.
func (m Terminal) Press(keys ...string) { m.Run(append([]string{"send-keys", "-t", "w"}, keys...)...) }

// Screen gives the lines of the screen.
func (m Terminal) Screen() string { return m.Run("capture-pane", "-p", "-t", "w") }

// patience is how long Shows waits. A busy machine, or a check of a lab, may need most of it.
const patience = 3 * time.Minute

// Shows waits until the screen has every text, and gives it.
func (m Terminal) Shows(texts ...string) string {
	m.t.Helper()
	missing := ""
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		screen := m.Screen()
		missing = ""
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				missing = text
			}
		}
		if missing == "" {
			return screen
		}
		<-time.After(50 * time.Millisecond)
	}
	m.t.Fatalf("the screen lacks %q:\n%s", missing, m.Screen())
	return ""
}
