// Package lab holds the targets, one file each: a target opens a session, builds its plan and runs it. What a step does
// is in the packages that the plans call.
package lab

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/magefile/mage/mg"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/command"
	"ambientlab/internal/mage/starter"
	"ambientlab/internal/problem"
	"ambientlab/internal/record"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Target is what a Mage target runs.
type Target func(context.Context, *session.Env) error

// Run reads the settings, runs the target of a name with them and turns its failure into what Mage prints and exits
// with. SIGINT, SIGTERM and SIGHUP cancel the target, and so does the end of the mage that runs it. Mage itself handles
// SIGINT only, and waits five seconds after it (magefile/mage, mage/template.go), so a target must end soon after
// cancellation.
func Run(parent context.Context, name string, target Target) error {
	return start(parent, name, target, manner{})
}

// manner is how a target is run.
type manner struct {
	// lines says that the target's own output comes between the events, so that no tree can be drawn.
	lines bool
	// ownEvidence says that the target itself collects evidence about its failure.
	ownEvidence bool
}

func start(parent context.Context, name string, target Target, how manner) error {
	// client-go and controller-runtime log to stderr, in the middle of what is shown. What matters of it is returned as
	// errors and reasons.
	klog.SetLogger(logr.Discard())
	crlog.SetLogger(logr.Discard())
	collectLess(os.Getenv)
	ctx, stop := signal.NotifyContext(parent, cancelling(signal.Ignored)...)
	defer stop()
	byMage := startedByMage()
	ctx, release := withParent(ctx, byMage, os.Getppid)
	defer release()
	command := session.CommandOf(os.Args[0], byMage, starter.IsParent(os.Getenv, os.Getppid))
	settings, err := session.Load(os.Getenv)
	if err == nil {
		err = refuseRepeatedFlags(os.Args[1:])
	}
	kind := ui.Kind(settings.Output)
	if err != nil {
		kind = ui.Auto
	}
	if kind = ui.Chosen(kind, os.Getenv); how.lines && kind == ui.Auto {
		kind = ui.Plain
	}
	view := ui.New(kind, os.Stderr, os.Getenv)
	defer view.Close()
	if err != nil {
		return fail(view, forCommand(command, err))
	}
	sink, closeTrace, err := traced(settings, view)
	recorder, began := record.New(sink), time.Now()
	recording := func(err error) record.Run {
		run := recorder.Run(name, began, err)
		run.Settings, run.Typed = session.Values(os.Getenv), typed(command, os.Args[1:])
		return run
	}
	var env *session.Env
	if err == nil {
		env, err = session.New(settings, os.Stdout, recorder)
	}
	if err == nil {
		env.Command, env.Keep = command, recorder.Add
		env.Recording = recording
		err = target(ctx, env)
		if err != nil && !how.ownEvidence {
			collectAfterFailure(ctx, env, recording(err))
		}
		err = errors.Join(err, env.Close())
	}
	err = errors.Join(err, closeTrace())
	err = forCommand(command, err)
	run := recording(err)
	err = errors.Join(err, writeReport(settings.Report, run))
	if kind == ui.GitHub {
		err = errors.Join(err, appendSummary(os.Getenv("GITHUB_STEP_SUMMARY"), run))
	}
	return fail(view, err)
}

// typed is a command line as it was typed.
func typed(program string, args []string) string {
	return command.Command{Name: program, Args: args}.String()
}

// writeReport writes the JUnit file of a run into the folder of SM_REPORT.
func writeReport(folder string, run record.Run) error {
	if folder == "" {
		return nil
	}
	var content bytes.Buffer
	if err := ui.WriteJUnit(&content, run); err != nil {
		return err
	}
	path := filepath.Join(folder, "junit-sm-"+run.Target+".xml")
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = atomicfile.Write(path, content.Bytes(), 0o644)
	}
	if err != nil {
		return problem.New(problem.SettingFileUnreadable, err, "SM_REPORT: %s cannot be written", path)
	}
	return nil
}

// appendSummary adds a run to the job summary, where the platform gives a file for it. The steps of a job may write to
// the same file one after the other.
func appendSummary(path string, run record.Run) (err error) {
	if path == "" {
		return nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return problem.New(problem.SettingFileUnreadable, err, "the job summary %s cannot be written", path)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return ui.WriteSummary(file, run)
}

// Most targets end within seconds, and decode many objects meanwhile: with Go's default a quarter of their CPU time is
// garbage collection.
const (
	garbage     = 400     // percent of the live heap
	memoryLimit = 1 << 30 // bytes, from which on Go collects as often as it must
)

// collectLess makes Go collect garbage less often, unless the user chose otherwise.
func collectLess(getenv func(string) string) {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return
	}
	debug.SetGCPercent(garbage)
	debug.SetMemoryLimit(memoryLimit)
}

// cancelling lists the signals that cancel a target. A program that nohup started has SIGHUP ignored, and must go on
// ignoring it.
func cancelling(ignored func(os.Signal) bool) []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// fail shows a failure with its advice and gives Mage the exit code and one closing line.
func fail(view ui.Renderer, err error) error {
	if err == nil {
		return nil
	}
	view.Failure(err)
	var p *problem.Problem
	if errors.As(err, &p) {
		return mg.Fatal(problem.ExitCode(err), p.ID)
	}
	return mg.Fatal(problem.ExitCode(err), "the target failed")
}

// forCommand makes the advice of an error name targets as the user types them. It must be done once.
func forCommand(command string, err error) error {
	for _, p := range problem.All(err) {
		for i, advice := range p.Advice {
			p.Advice[i] = session.TypedWith(command, advice)
		}
	}
	return err
}
