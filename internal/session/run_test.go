package session

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

// A target whose time is up was not interrupted, and keeps what its steps found out.
func TestTimeIsUp(t *testing.T) {
	for name, tc := range map[string]struct {
		err  func(context.Context) error
		want problem.Kind
	}{
		"nothing known": {context.Cause, problem.OutOfTime},
		"an image pull": {
			func(ctx context.Context) error { return problem.New(problem.ImagePull, context.Cause(ctx), "pod a") },
			problem.ImagePull,
		},
		"no ztunnel": {
			func(ctx context.Context) error { return problem.New(problem.ZtunnelDown, context.Cause(ctx), "pod a") },
			problem.ZtunnelDown,
		},
		"only not ready yet": {
			func(ctx context.Context) error { return problem.New(problem.NotReady, context.Cause(ctx), "pod a") },
			problem.OutOfTime,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, err := New(Settings{Timeout: time.Minute}, io.Discard, ui.New(ui.Plain, io.Discard, env()))
				if err != nil {
					t.Fatal(err)
				}
				waits := engine.Step{ID: "s", Title: "S", Do: func(ctx context.Context) error {
					<-ctx.Done()
					return tc.err(ctx)
				}}
				_, err = e.ApplyWithoutLab(t.Context(), engine.Plan{Name: "p", Title: "P", Steps: []engine.Step{waits}})
				if got := problem.ExitCode(err); got != tc.want.Exit() {
					t.Errorf("exits with %d, not %d: %v", got, tc.want.Exit(), err)
				}
				if tc.want.ID == problem.OutOfTime.ID && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("not a deadline: %v", err)
				}
			})
		})
	}
}

// Steps get longer with SM_TIMEOUT, and never shorter than their minimum.
func TestStepTimeouts(t *testing.T) {
	for target, want := range map[time.Duration][2]time.Duration{
		10 * time.Second: {10 * time.Minute, 2 * time.Minute},
		30 * time.Minute: {10 * time.Minute, 2 * time.Minute},
		45 * time.Minute: {15 * time.Minute, 3 * time.Minute},
		2 * time.Hour:    {40 * time.Minute, 8 * time.Minute},
	} {
		s := Settings{Timeout: target}
		if s.StepTimeout() != want[0] || s.ShortStepTimeout() != want[1] {
			t.Errorf("SM_TIMEOUT=%s gives %s and %s, want %v", target, s.StepTimeout(), s.ShortStepTimeout(), want)
		}
	}
}
