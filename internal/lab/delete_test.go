package lab

import (
	"context"
	"errors"
	"testing"

	"ambientlab/internal/problem"
)

// TestLabShowsTheStatusWhateverTheProofsSay is about the end of sm:lab.
func TestLabShowsTheStatusWhateverTheProofsSay(t *testing.T) {
	refuted := problem.New(problem.ClaimRefuted, nil, "of 9 claims 1 was refuted")
	for name, tc := range map[string]struct {
		verify, status error
		interrupted    bool
		shown          bool
		exit           int
	}{
		"all proven": {shown: true},
		"refuted":    {verify: refuted, shown: true, exit: problem.ClaimRefuted.Exit()},
		"both": {
			verify: refuted, status: problem.New(problem.ClusterUnreachable, nil, "gone"), shown: true,
			exit: problem.ClaimRefuted.Exit(),
		},
		"no status": {
			status: problem.New(problem.ClusterUnreachable, nil, "gone"), shown: true,
			exit: problem.ClusterUnreachable.Exit(),
		},
		"interrupted then": {
			verify: problem.New(problem.Interrupted, nil, "by SIGINT"), interrupted: true,
			exit: problem.Interrupted.Exit(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			shown := false
			err := closing(ctx, func(context.Context) error {
				if tc.interrupted {
					cancel(errors.New("SIGINT"))
				}
				return tc.verify
			}, func(_ context.Context, proven bool) error {
				if proven != (tc.verify == nil) {
					t.Errorf("proven: %v", proven)
				}
				shown = true
				return tc.status
			})
			if shown != tc.shown || problem.ExitCode(err) != tc.exit {
				t.Errorf("status shown: %v, want %v; exit code %d, want %d", shown, tc.shown, problem.ExitCode(err),
					tc.exit)
			}
		})
	}
}
