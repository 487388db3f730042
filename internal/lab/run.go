// Package lab is the product: the settings a user chooses and the plan of every target. It reads like the table of
// contents of the lessons; what a step really does lives in the packages it calls.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/magefile/mage/mg"
	"k8s.io/klog/v2"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"

	"ambientlab/internal/engine"
	"ambientlab/internal/mage/starter"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// Run reads the settings, runs one target with them and turns its failure into what Mage prints and exits with.
// SIGINT, SIGTERM and SIGHUP cancel the target, and so does the end of the mage that runs it; Mage itself only knows
// SIGINT and gives five seconds after it (magefile/mage, mage/template.go), so what a target does on cancellation is short.
func Run(parent context.Context, target func(*Lab, context.Context) error) error {
	// client-go and controller-runtime log by themselves, in the middle of what is shown. What matters of it comes back
	// as errors and reasons.
	klog.SetLogger(logr.Discard())
	crlog.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(parent, endings(signal.Ignored)...)
	defer stop()
	ctx, release := withParent(ctx, startedByMage(), os.Getppid)
	defer release()
	words := wording{tool: starter.IsParent(os.Getenv, os.Getppid)}
	settings, err := Load(os.Getenv)
	if err != nil {
		view := ui.New(ui.Auto, os.Stderr, os.Getenv)
		defer view.Close()
		return fail(view, words, err)
	}
	view := ui.New(ui.Kind(settings.Output), os.Stderr, os.Getenv)
	defer view.Close()
	l, err := New(settings, os.Stdout, view)
	if err != nil {
		return fail(view, words, err)
	}
	l.words = words
	err = target(l, ctx)
	return fail(view, l.words, errors.Join(err, l.Close()))
}

// endings lists the signals that cancel a target. A program that nohup started has SIGHUP ignored, and asking for it
// would undo that.
func endings(ignored func(os.Signal) bool) []os.Signal {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signals
}

// fail shows a failure with its advice and gives Mage the exit code and one closing line.
func fail(view ui.Renderer, words wording, err error) error {
	if err == nil {
		return nil
	}
	for _, p := range problem.All(err) {
		for i, advice := range p.Advice {
			p.Advice[i] = words.typed(advice)
		}
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
	result, err := l.engine.Apply(ctx, plan.Decorate(steady))
	return result, l.withStopped(err)
}

// undo takes a plan back within the whole target's deadline.
func (l *Lab) undo(ctx context.Context, plan engine.Plan) (engine.Result, error) {
	ctx, cancel := l.deadline(ctx)
	defer cancel()
	result, err := l.engine.Undo(ctx, plan.Decorate(steady))
	return result, l.withStopped(err)
}

func (l *Lab) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, l.Settings.Timeout, &overdue{limit: l.Settings.Timeout})
}

// overdue is the cause of a target's context whose time is up. It counts as context.DeadlineExceeded, so that nobody
// takes a target that was too slow for one that was interrupted.
type overdue struct{ limit time.Duration }

func (o *overdue) Error() string {
	return fmt.Sprintf("the target took longer than SM_TIMEOUT allows (%s)", o.limit)
}

func (o *overdue) Is(target error) bool { return target == context.DeadlineExceeded }

// thenType ends a target with what to type next. sm:lab types it by itself, so there only its last part says it.
func (l *Lab) thenType(format string, args ...any) {
	if l.whole {
		return
	}
	l.tell("next: "+format, args...)
}

// tell says something to people, on stderr like all talk.
func (l *Lab) tell(format string, args ...any) {
	l.engine.Sink.Handle(engine.Event{Time: time.Now(), Kind: engine.Note, Message: l.words.typed(fmt.Sprintf(format, args...))})
}
