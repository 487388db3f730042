package lab

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
		"nothing known":      {context.Cause, problem.OutOfTime},
		"an image pull":      {func(ctx context.Context) error { return problem.New(problem.ImagePull, context.Cause(ctx), "pod a") }, problem.ImagePull},
		"no ztunnel":         {func(ctx context.Context) error { return problem.New(problem.ZtunnelDown, context.Cause(ctx), "pod a") }, problem.ZtunnelDown},
		"only not ready yet": {func(ctx context.Context) error { return problem.New(problem.NotReady, context.Cause(ctx), "pod a") }, problem.OutOfTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, err := New(Settings{Timeout: time.Minute}, io.Discard, ui.New(ui.Plain, io.Discard, env()))
				if err != nil {
					t.Fatal(err)
				}
				waits := engine.Step{ID: "s", Title: "S", Do: func(ctx context.Context) error {
					<-ctx.Done()
					return tc.err(ctx)
				}}
				_, err = l.apply(t.Context(), engine.Plan{Name: "p", Title: "P", Steps: []engine.Step{waits}})
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

// No step that applies objects waits for ever.
func TestStepsThatApplyHaveATimeout(t *testing.T) {
	l := &Lab{Settings: Settings{Provider: ProviderKind, Namespace: "default", Addons: addonNames, MetalLB: "on"}}
	for _, step := range []engine.Step{
		l.setStep("s", "S", nil, l.gatewayAPI), l.metalLBStep(), l.addonStep("grafana"), l.namespaceStep("namespace"), l.enrolStep("enrol"),
	} {
		if step.Timeout != patient {
			t.Errorf("step %s may take %s", step.ID, step.Timeout)
		}
	}
}
