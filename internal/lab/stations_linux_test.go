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
	b := newBench(t, "stations-test", "SM_PACKETS=on", "SM_ADDONS="+stationAddons)
	p := b.compiled()
	b.installOrSkip()

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
	l, e, err := WorkshopOptions{Program: p.program}.opened(t.Context(), env)
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
		for deadline := time.After(6 * time.Minute); !e.View().Done; {
			select {
			case <-changed:
				changed = e.Changed()
			case <-deadline:
				t.Fatalf("station %s is not done within six minutes: %+v", v.Station.Name, e.View().Items)
			}
		}
		t.Logf("station %s: done %s after its commands were typed", v.Station.Name,
			time.Since(came).Round(100*time.Millisecond))
		others := slices.DeleteFunc(workshop.Commands(v.Steps),
			func(c string) bool { return slices.Contains(v.Do(), c) })
		for _, command := range append(others, workshop.Commands(v.Next)...) {
			p.shell(command)
		}
		if e.View().Finished {
			break
		}
		e.Next()
	}
	t.Logf("the whole workshop took %s", time.Since(began).Round(time.Second))
}

// compiledLab is the lab as Mage compiles it, in a folder that is the first of PATH, together with kubectl and an
// xdg-open that opens nothing.
type compiledLab struct {
	b            *bench
	dir, program string
}

// compiled compiles the lab, and makes it and kubectl find the lab of the test.
func (b *bench) compiled() compiledLab {
	b.t.Helper()
	state := b.t.TempDir()
	b.StateDir = filepath.Join(state, "ambientlab", "embedded")
	p := compiledLab{b: b, dir: b.t.TempDir()}
	p.program = filepath.Join(p.dir, "mage")
	compile := exec.CommandContext(b.t.Context(), "go", "tool", "mage", "-compile", p.program)
	compile.Dir = filepath.Join("..", "..")
	if out, err := compile.CombinedOutput(); err != nil {
		b.t.Fatalf("compiling the lab: %v\n%s", err, out)
	}
	for _, file := range []string{"go.mod", "go.sum"} { // the program asks Go for the pinned modules
		content := []byte(read(b.t, filepath.Join("..", "..", file)))
		if err := os.WriteFile(filepath.Join(p.dir, file), content, 0o600); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.Symlink(b.kubectlProgram(), filepath.Join(p.dir, "kubectl")); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "xdg-open"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		b.t.Fatal(err)
	}
	for name, value := range b.env {
		b.t.Setenv(name, value)
	}
	b.t.Setenv("XDG_STATE_HOME", state)
	b.t.Setenv("PATH", p.dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return p
}

// shell runs a command of a station in a shell.
func (p compiledLab) shell(command string) {
	p.b.t.Helper()
	shell := exec.CommandContext(p.b.t.Context(), "sh", "-c", command)
	shell.Dir = p.dir
	out, err := shell.CombinedOutput()
	// fortio curl ends with an error where the answer is not 200, and the station says that it is 403.
	if err != nil && !(strings.Contains(command, "fortio curl") && strings.Contains(string(out), "403 Forbidden")) {
		p.b.t.Errorf("%s: %v\n%s", command, err, out)
	}
}
