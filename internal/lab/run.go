// Package lab is the product: the settings a user chooses and the plan of every target. It reads like the table of
// contents of the lessons; what a step really does lives in the packages it calls.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/magefile/mage/mg"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// Run reads the settings, runs one target with them and turns its failure into what Mage prints and exits with.
// SIGINT, SIGTERM and SIGHUP cancel the target; Mage itself only knows SIGINT and gives five seconds after it
// (magefile/mage, mage/template.go), so what a target does on cancellation is short.
func Run(parent context.Context, target func(*Lab, context.Context) error) error {
	// client-go and controller-runtime log by themselves, in the middle of what is shown. What matters of it comes back
	// as errors and reasons.
	klog.SetLogger(logr.Discard())
	crlog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	settings, err := Load(os.Getenv)
	if err != nil {
		view := ui.New(ui.Auto, os.Stderr, os.Getenv)
		defer view.Close()
		return fail(view, err)
	}
	view := ui.New(ui.Kind(settings.Output), os.Stderr, os.Getenv)
	defer view.Close()
	l, err := New(settings, os.Stdout, view)
	if err != nil {
		return fail(view, err)
	}
	err = target(l, ctx)
	return fail(view, errors.Join(err, l.Close()))
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

// apply runs a plan within the whole target's deadline.
func (l *Lab) apply(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, cancel := l.deadline(ctx)
	defer cancel()
	result, err := l.engine.Apply(ctx, steady(plan))
	return result, l.withStopped(err)
}

// undo takes a plan back within the whole target's deadline.
func (l *Lab) undo(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, cancel := l.deadline(ctx)
	defer cancel()
	result, err := l.engine.Undo(ctx, steady(plan))
	return result, l.withStopped(err)
}

func (l *Lab) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	cause := fmt.Errorf("the target took longer than SM_TIMEOUT allows (%s)", l.Settings.Timeout)
	return context.WithTimeoutCause(ctx, l.Settings.Timeout, cause)
}

// next tells what to type next, on stderr like all talk.
func (l *Lab) next(format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	if l.auto && l.embedded != nil {
		// Whoever types what it says next would otherwise be at kind, which sm:lab has just passed over.
		message = strings.ReplaceAll(message, "mage sm:", "SM_PROVIDER="+ProviderEmbedded+" mage sm:")
	}
	l.engine.Sink.Handle(engine.Event{Time: l.clock.Now(), Kind: engine.Note, Message: message})
}
