// Package lab holds the targets, one file each: a target opens a session, builds its plan and runs it. What a step does
// is in the packages that the plans call.
package lab

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/magefile/mage/mg"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"ambientlab/internal/mage/starter"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Target is what a Mage target runs.
type Target func(context.Context, *session.Env) error

// Run reads the settings, runs one target with them and turns its failure into what Mage prints and exits with. SIGINT,
// SIGTERM and SIGHUP cancel the target, and so does the end of the mage that runs it. Mage itself handles SIGINT only,
// and waits five seconds after it (magefile/mage, mage/template.go), so a target must end soon after cancellation.
func Run(parent context.Context, target Target) error {
	// client-go and controller-runtime log to stderr, in the middle of what is shown. What matters of it is returned as
	// errors and reasons.
	klog.SetLogger(logr.Discard())
	crlog.SetLogger(logr.Discard())
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
	if err != nil {
		view := ui.New(ui.Auto, os.Stderr, os.Getenv)
		defer view.Close()
		return fail(view, command, err)
	}
	view := ui.New(ui.Kind(settings.Output), os.Stderr, os.Getenv)
	defer view.Close()
	env, err := session.New(settings, os.Stdout, view)
	if err != nil {
		return fail(view, command, err)
	}
	env.Command = command
	err = target(ctx, env)
	return fail(view, command, errors.Join(err, env.Close()))
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
func fail(view ui.Renderer, command string, err error) error {
	if err == nil {
		return nil
	}
	for _, p := range problem.All(err) {
		for i, advice := range p.Advice {
			p.Advice[i] = session.TypedWith(command, advice)
		}
	}
	view.Failure(err)
	var p *problem.Problem
	if errors.As(err, &p) {
		return mg.Fatal(problem.ExitCode(err), p.ID)
	}
	return mg.Fatal(problem.ExitCode(err), "the target failed")
}
