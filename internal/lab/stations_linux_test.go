package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ambientlab/internal/session"
	"ambientlab/internal/ui"
	"ambientlab/internal/workshop"
)

// TestEveryStation goes through the workshop as a learner does who has everything done for them and then tries what
// each station proposes: every command of the stations is run by the program that Mage compiles, on a lab whose pods
// run.
func TestEveryStation(t *testing.T) {
	b := newBench(t, "stations-test", "SM_PACKETS=on", "SM_ADDONS=none")
	state := t.TempDir() // the program finds the lab there
	b.StateDir = filepath.Join(state, "ambientlab", "embedded")
	b.installOrSkip()
	dir := t.TempDir()
	program := filepath.Join(dir, "mage")
	compile := exec.CommandContext(t.Context(), "go", "tool", "mage", "-compile", program)
	compile.Dir = filepath.Join("..", "..")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("compiling the lab: %v\n%s", err, out)
	}
	for _, file := range []string{"go.mod", "go.sum"} { // the program asks Go for the pinned modules
		content := []byte(read(t, filepath.Join("..", "..", file)))
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range b.env {
		t.Setenv(name, value)
	}
	t.Setenv("XDG_STATE_HOME", state)
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))

	began := time.Now()
	settings, err := session.Load(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	env, err := session.New(settings, b.out, ui.New(ui.Plain, b.talk, os.Getenv))
	if err != nil {
		t.Fatal(err)
	}
	env.StateDir = b.StateDir
	l, e, err := WorkshopOptions{Program: program}.opened(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	running.Go(func() { l.feed.Run(ctx) })
	defer running.Wait()
	defer stop()
	for {
		v := e.View()
		came := time.Now()
		if err := e.Do(ctx); err != nil {
			t.Fatalf("%s: %v\n%s", v.Station.Name, err, strings.Join(e.View().Output, "\n"))
		}
		changed := e.Changed()
		for deadline := time.After(3 * time.Minute); !e.View().Done; {
			select {
			case <-changed:
				changed = e.Changed()
			case <-deadline:
				t.Fatalf("station %s is not done within three minutes: %+v", v.Station.Name, e.View().Items)
			}
		}
		t.Logf("station %s: done %s after its commands were typed", v.Station.Name,
			time.Since(came).Round(100*time.Millisecond))
		others := slices.DeleteFunc(workshop.Commands(v.Steps),
			func(c string) bool { return slices.Contains(v.Do(), c) })
		for _, command := range append(others, workshop.Commands(v.Next)...) {
			runCommand(t, dir, command)
		}
		if e.View().Finished {
			break
		}
		e.Next()
	}
	t.Logf("the whole workshop took %s", time.Since(began).Round(time.Second))
}

// runCommand runs a command of a station in a shell.
func runCommand(t *testing.T, dir, command string) {
	t.Helper()
	if _, err := exec.LookPath("kubectl"); err != nil && strings.HasPrefix(command, "kubectl ") {
		t.Logf("not run, since kubectl is not installed: %s", command)
		return
	}
	shell := exec.CommandContext(t.Context(), "sh", "-c", command)
	shell.Dir = dir
	out, err := shell.CombinedOutput()
	// fortio curl ends with an error where the answer is not 200, and the station says that it is 403.
	if err != nil && !(strings.Contains(command, "fortio curl") && strings.Contains(string(out), "403 Forbidden")) {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
}
