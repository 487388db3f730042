package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

func TestApplyRunsIndependentStepsSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("done")
		rec := &recorder{}
		e := engine.Engine{Sink: rec}
		res, err := e.Apply(t.Context(), plan(
			w.step("slow", 5*time.Second),
			w.step("quick", time.Second),
			w.step("done", time.Hour),
			w.step("last", time.Second, "slow", "done"),
			w.step("after-quick", 2*time.Second, "quick"),
		))
		if err != nil {
			t.Fatal(err)
		}
		want(t, "duration is that of the longest path", res.Duration, 6*time.Second)
		want(t, "order", w.log, []string{"do quick", "do after-quick", "do slow", "do last"})
		want(t, "changes", len(res.Changes()), 4)
		want(t, "unchanged", res.Count(engine.Unchanged), 1)
		want(t, "results are in the plan's order", res.Steps[3].ID, "last")

		again, err := e.Apply(t.Context(), plan(w.step("slow", 5*time.Second)))
		if err != nil {
			t.Fatal(err)
		}
		want(t, "a second run changes nothing", len(again.Changes()), 0)
		want(t, "a second run takes no time", again.Duration, time.Duration(0))
	})
}

func TestApplyEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld("a")
		b := w.step("b", 0, "a")
		do := b.Do
		b.Do = func(ctx context.Context) error {
			engine.Progress(ctx, "pulling")
			engine.Progress(ctx, "pulling")
			engine.Tell(ctx, "what stays")
			if err := pause(ctx, 2*time.Second); err != nil {
				return err
			}
			return do(ctx)
		}
		rec := &recorder{}
		e := engine.Engine{Sink: rec}
		if _, err := e.Apply(t.Context(), plan(w.step("a", 0), b)); err != nil {
			t.Fatal(err)
		}
		want(t, "events", rec.lines, []string{
			"plan-started",
			"step-started a", "step-unchanged a",
			"step-started b", "step-progress b pulling", "note b what stays", "step-changed b create b",
			"step-done b 2s",
			"plan-done 2s",
		})
	})
}

func TestDecorateAppliesTheFirstInnermost(t *testing.T) {
	var log []string
	note := func(name string) engine.Decorator {
		return func(s engine.Step) engine.Step {
			do := s.Do
			s.Do = func(ctx context.Context) error {
				log = append(log, name)
				return do(ctx)
			}
			return s
		}
	}
	w := newWorld()
	before := plan(w.step("a", 0))
	var e engine.Engine
	if _, err := e.Apply(t.Context(), before.Decorate(note("inner"), note("outer"))); err != nil {
		t.Fatal(err)
	}
	want(t, "order", log, []string{"outer", "inner"})
	if _, err := e.Undo(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Apply(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	want(t, "the plan itself is not decorated", len(log), 2)
}

func TestFailureCancelsTheOthersAndReportsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		bad := w.step("bad", 0)
		bad.Do = func(ctx context.Context) error {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			return problem.New(problem.ImagePull, nil, "no such image")
		}
		var cause error
		heeds := w.step("heeds", 0)
		heeds.Do = func(ctx context.Context) error {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return fmt.Errorf("waiting: %w", ctx.Err())
		}
		flattened := w.step("flattened", 0)
		flattened.Do = func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("client rate limiter Wait returned an error: context canceled")
		}
		alsoBad := w.step("also-bad", 0)
		alsoBad.Do = func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("disk full")
		}
		e := engine.Engine{}
		res, err := e.Apply(t.Context(), plan(bad, heeds, flattened, alsoBad, w.step("later", 0, "heeds")))
		want(t, "error", fmt.Sprint(err), "BAD: no such image [LAB-IMAGE-PULL]\nALSO-BAD: disk full")
		want(t, "exit code", problem.ExitCode(err), problem.ImagePull.Exit())
		var outcomes []engine.Outcome
		for _, s := range res.Steps {
			outcomes = append(outcomes, s.Outcome)
		}
		want(t, "outcomes", outcomes, []engine.Outcome{
			engine.Failed, engine.Canceled, engine.Canceled, engine.Failed, engine.Canceled,
		})
		want(t, "cause", fmt.Sprint(cause), `"BAD" failed`)
		want(t, "never started", res.Steps[4].Message, `not started: "BAD" failed`)
		var failed *engine.FailedStep
		if !errors.As(cause, &failed) || failed.ID != "bad" {
			t.Errorf("cause %v does not name the step", cause)
		}
	})
}

func TestTimeoutSaysWhatItWaitedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		err      func(ctx context.Context) error
		want     string
		wantKind problem.Kind
	}{
		"bare": {
			err:      func(ctx context.Context) error { return ctx.Err() },
			want:     "S: not finished within 3s; it was waiting for: pod a: ImagePullBackOff [LAB-OUT-OF-TIME]",
			wantKind: problem.OutOfTime,
		},
		"cause": {
			err:      context.Cause,
			want:     "S: not finished within 3s; it was waiting for: pod a: ImagePullBackOff [LAB-OUT-OF-TIME]",
			wantKind: problem.OutOfTime,
		},
		"wrapped": {
			err: func(ctx context.Context) error { return fmt.Errorf("listing: %w", ctx.Err()) },
			want: "S: not finished within 3s; it was waiting for: pod a: ImagePullBackOff: listing: " +
				"context deadline exceeded [LAB-OUT-OF-TIME]",
			wantKind: problem.OutOfTime,
		},
		"own problem": {
			err: func(context.Context) error { return problem.New(problem.NotReady, nil, "Deployment a") },
			want: "S: Deployment a [LAB-NOT-READY] (not finished within 3s; it was waiting for: pod a: " +
				"ImagePullBackOff)",
			wantKind: problem.NotReady,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := engine.Step{ID: "s", Title: "S", Timeout: 3 * time.Second, Do: func(ctx context.Context) error {
					engine.Progress(ctx, "pod a: ImagePullBackOff")
					<-ctx.Done()
					return tc.err(ctx)
				}}
				var e engine.Engine
				_, err := e.Apply(t.Context(), plan(s))
				want(t, "error", fmt.Sprint(err), tc.want)
				want(t, "exit code", problem.ExitCode(err), tc.wantKind.Exit())
			})
		})
	}
}

func TestCallerCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		s := w.step("s", time.Hour)
		do := s.Do
		s.Do = func(ctx context.Context) error {
			engine.Progress(ctx, "creating nodes")
			return do(ctx)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var e engine.Engine
		_, err := e.Apply(ctx, plan(s, w.step("t", time.Second, "s")))
		want(t, "deadline", fmt.Sprint(err),
			"p was stopped before its end; it was running: S (creating nodes): "+
				"context deadline exceeded [LAB-OUT-OF-TIME]")

		bySignal, stop := context.WithCancelCause(t.Context())
		stop(problem.New(problem.Interrupted, nil, "SIGTERM"))
		_, err = e.Apply(bySignal, plan(s))
		want(t, "signal", fmt.Sprint(err), "p: SIGTERM [LAB-INTERRUPTED]")
		want(t, "exit code", problem.ExitCode(err), 130)
	})
}

func TestCheckDecides(t *testing.T) {
	no := func(message string) func(context.Context) (engine.Status, error) {
		return func(context.Context) (engine.Status, error) { return engine.Status{Message: message}, nil }
	}
	broken := func(context.Context) (engine.Status, error) { return engine.Status{}, errors.New("no route to host") }
	nothing := func(context.Context) error { return nil }
	for name, tc := range map[string]struct {
		step engine.Step
		want string
	}{
		"do that did not work": {
			engine.Step{Check: no("pod pending"), Do: nothing},
			"S: still not done after it was run: pod pending [LAB-NOT-READY]",
		},
		"gate":               {engine.Step{Check: no("not yet")}, "S: not yet [LAB-NOT-READY]"},
		"gate without words": {engine.Step{Check: no("")}, "S: no reason given [LAB-NOT-READY]"},
		"check that fails":   {engine.Step{Check: broken, Do: nothing}, "S: checking: no route to host"},
		"no check":           {engine.Step{Do: nothing}, "<nil>"},
		"empty":              {engine.Step{}, "<nil>"},
	} {
		t.Run(name, func(t *testing.T) {
			tc.step.ID, tc.step.Title = "s", "S"
			var e engine.Engine
			_, err := e.Apply(t.Context(), plan(tc.step))
			want(t, "error", fmt.Sprint(err), tc.want)
		})
	}
}

func TestDeafAndPanickingSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, started := make(chan struct{}), make(chan struct{})
		defer close(release)
		deaf := engine.Step{ID: "deaf", Title: "Deaf", Do: func(context.Context) error {
			close(started)
			<-release
			return nil
		}}
		bang := engine.Step{ID: "bang", Title: "Bang", Do: func(context.Context) error {
			<-started // otherwise the deaf step would never be started
			panic("boom")
		}}
		e := engine.Engine{}
		res, err := e.Apply(t.Context(), plan(deaf, bang))
		text := fmt.Sprint(err)
		for _, part := range []string{
			"Bang: panic: boom", "Deaf: did not return within 30s after it was cancelled",
			problem.Internal.ID,
		} {
			if !strings.Contains(text, part) {
				t.Errorf("%q is not in the error %s", part, text)
			}
		}
		want(t, "duration", res.Duration, 30*time.Second)
	})
}

func TestLateWordsAreDropped(t *testing.T) {
	rec := &recorder{}
	var kept context.Context
	e := engine.Engine{Sink: rec}
	_, err := e.Apply(t.Context(),
		plan(engine.Step{ID: "s", Do: func(ctx context.Context) error { kept = ctx; return nil }}))
	if err != nil {
		t.Fatal(err)
	}
	before := len(rec.lines)
	engine.Progress(kept, "still here")
	engine.Changed(kept, engine.Change{Object: "x"})
	engine.Progress(t.Context(), "outside a step")
	engine.Changed(t.Context(), engine.Change{Object: "x"})
	want(t, "events after the end", len(rec.lines), before)
}

// What Check found missing is the first progress of the step; Check without a message has no progress.
func TestCheckStartsTheProgress(t *testing.T) {
	for message, wanted := range map[string][]string{
		"2 objects differ": {"step-progress s 2 objects differ"},
		"":                 nil,
	} {
		done := false
		rec := &recorder{}
		e := engine.Engine{Sink: rec}
		_, err := e.Apply(t.Context(), plan(engine.Step{
			ID: "s", Title: "S",
			Check: func(context.Context) (engine.Status, error) {
				return engine.Status{Done: done, Message: message}, nil
			},
			Do: func(context.Context) error { done = true; return nil },
		}))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range rec.lines {
			if strings.HasPrefix(line, string(engine.StepProgress)) {
				got = append(got, line)
			}
		}
		want(t, "progress", got, wanted)
	}
}

func TestUndoGoesBackward(t *testing.T) {
	w := newWorld("base", "left", "right", "top")
	var e engine.Engine
	steps := []engine.Step{
		w.step("base", 0), w.step("left", 0, "base"), w.step("right", 0, "base"), w.step("top", 0, "left"),
		{ID: "gate", Title: "Gate", Needs: []string{"base"}},
	}
	res, err := e.Undo(t.Context(), plan(steps...))
	if err != nil {
		t.Fatal(err)
	}
	position := map[string]int{}
	for i, line := range w.log {
		position[line] = i
	}
	if position["undo top"] > position["undo left"] || position["undo base"] != 3 {
		t.Errorf("order %v", w.log)
	}
	want(t, "nothing to undo", res.Steps[4].Outcome, engine.Unchanged)

	w = newWorld()
	stuck := w.step("left", 0, "base")
	stuck.Undo = func(context.Context) error { return errors.New("finalizer") }
	res, err = e.Undo(t.Context(), plan(w.step("base", 0), stuck, w.step("right", 0, "base")))
	want(t, "error", fmt.Sprint(err), "LEFT: finalizer")
	want(t, "others are undone", w.log, []string{"undo right"})
	want(t, "what it needs stays", res.Steps[0].Message, `left in place: "LEFT" needs it and was not undone`)
}

// TestMilestones: a step that needs no more than a milestone starts when it is reached, another one when the step is
// done, and a step that is done before the run has reached every milestone.
func TestMilestones(t *testing.T) {
	build := func(w *world, fails error) engine.Plan {
		cluster := w.step("cluster", 0)
		cluster.Milestones = []string{"api"}
		create := cluster.Do
		cluster.Do = func(ctx context.Context) error {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			engine.Reached(ctx, "api")
			engine.Reached(ctx, "api")
			if err := pause(ctx, time.Minute); err != nil {
				return err
			}
			if fails != nil {
				return fails
			}
			return create(ctx)
		}
		return plan(cluster, w.step("early", 2*time.Second, "cluster/api"), w.step("late", 0, "cluster", "early"))
	}
	t.Run("order", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			result, err := (&engine.Engine{}).Apply(t.Context(), build(w, nil))
			if err != nil {
				t.Fatal(err)
			}
			want(t, "log", w.log, []string{"do early", "do cluster", "do late"})
			want(t, "duration", result.Duration, time.Minute+time.Second)
			if _, err := (&engine.Engine{}).Undo(t.Context(), build(w, nil)); err != nil {
				t.Fatal(err)
			}
			want(t, "log", w.log[3:], []string{"undo late", "undo early", "undo cluster"})
		})
	})
	t.Run("done before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			result, err := (&engine.Engine{}).Apply(t.Context(), build(newWorld("cluster"), nil))
			if err != nil {
				t.Fatal(err)
			}
			want(t, "duration", result.Duration, 2*time.Second)
		})
	})
	// What fails because the step that it needs fails is not the cause of the failure.
	t.Run("failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := build(newWorld(), errors.New("no memory"))
			p.Steps[1].Do = func(ctx context.Context) error {
				return errors.Join(errors.New("connection refused"), pause(ctx, time.Second))
			}
			result, err := (&engine.Engine{}).Apply(t.Context(), p)
			want(t, "error", fmt.Sprint(err), "CLUSTER: no memory")
			want(t, "early", result.Steps[1].Outcome, engine.Canceled)
			want(t, "late", result.Steps[2].Outcome, engine.Canceled)
		})
	})
	// One that fails by itself does so after the step that it needs is done.
	t.Run("own failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := build(newWorld(), nil)
			p.Steps[1].Do = func(context.Context) error { return errors.New("rejected") }
			result, err := (&engine.Engine{}).Apply(t.Context(), p)
			want(t, "error", fmt.Sprint(err), "EARLY: rejected")
			want(t, "duration", result.Duration, time.Minute+time.Second)
			want(t, "cluster", result.Steps[0].Outcome, engine.Done)
		})
	})
	w := newWorld()
	p := build(w, nil)
	p.Steps[1].Needs = []string{"cluster/nodes"}
	want(t, "unknown", fmt.Sprint(p.Validate()), `plan p: step "early" needs "cluster/nodes", which is not in the plan`)
}

// TestLookFirst: where every step is done, all are checked at once; otherwise the plan runs as any other.
func TestLookFirst(t *testing.T) {
	slow := func(step engine.Step) engine.Step {
		check := step.Check
		step.Check = func(ctx context.Context) (engine.Status, error) {
			if err := pause(ctx, time.Second); err != nil {
				return engine.Status{}, err
			}
			return check(ctx)
		}
		return step
	}
	for name, tc := range map[string]struct {
		done     []string
		duration time.Duration
		log      []string
	}{
		"nothing to do":           {[]string{"a", "b", "c"}, 2 * time.Second, nil}, // a, and then b and c
		"the first is to be done": {[]string{"b", "c"}, 5 * time.Second, []string{"do a"}},
		"the last is to be done":  {[]string{"a", "b"}, 6 * time.Second, []string{"do c"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, rec := newWorld(tc.done...), &recorder{}
				p := plan(w.step("a", 0), w.step("b", 0, "a"), w.step("c", 0, "b")).Decorate(slow)
				p.LookFirst = true
				result, err := (&engine.Engine{Sink: rec}).Apply(t.Context(), p)
				if err != nil {
					t.Fatal(err)
				}
				want(t, "duration", result.Duration, tc.duration)
				want(t, "log", w.log, tc.log)
				want(t, "unchanged", result.Count(engine.Unchanged), len(tc.done))
				want(t, "done", result.Count(engine.Done), len(tc.log))
				want(t, "first event", rec.lines[0], "plan-started")
				want(t, "events", len(rec.lines), 2+2*3+len(tc.log))
			})
		})
	}
}

// TestWaiting: a step waits while at least one of its waits is in progress.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e engine.Engine
		result, err := e.Apply(t.Context(), plan(engine.Step{ID: "a", Do: func(ctx context.Context) error {
			first := engine.Waiting(ctx)
			err := pause(ctx, time.Second)
			second := engine.Waiting(ctx)
			err = errors.Join(err, pause(ctx, 2*time.Second))
			first()
			err = errors.Join(err, pause(ctx, 4*time.Second))
			second()
			return errors.Join(err, pause(ctx, 8*time.Second))
		}}))
		want(t, "error", err, nil)
		want(t, "duration", result.Steps[0].Duration, 15*time.Second)
		want(t, "waited", result.Steps[0].Waited, 7*time.Second)
		engine.Waiting(t.Context())() // outside a step
	})
}

func TestKindsThatEndAStep(t *testing.T) {
	want := map[engine.EventKind]engine.Outcome{
		engine.StepUnchanged: engine.Unchanged, engine.StepDone: engine.Done, engine.StepFailed: engine.Failed,
		engine.StepCanceled: engine.Canceled,
	}
	for _, kind := range []engine.EventKind{
		engine.PlanStarted, engine.StepStarted, engine.StepProgress, engine.StepChanged, engine.StepUnchanged,
		engine.StepDone, engine.StepFailed, engine.StepCanceled, engine.PlanDone, engine.PlanFailed, engine.Note,
		engine.Warning,
	} {
		if got := kind.Outcome(); got != want[kind] {
			t.Errorf("%s ends a step with outcome %q, want %q", kind, got, want[kind])
		}
	}
}
