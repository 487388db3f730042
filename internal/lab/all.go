package lab

import (
	"context"
	"errors"

	"ambientlab/internal/lesson"
	"ambientlab/internal/session"
)

// All runs the whole lab in order and ends with the proofs.
func All(ctx context.Context, env *session.Env) error {
	whole := env.With(true)
	if err := Install(ctx, whole); err != nil {
		return err
	}
	for _, l := range lesson.Course() {
		if err := Lesson(l, false)(ctx, whole); err != nil {
			return err
		}
	}
	return closing(ctx, func(ctx context.Context) error { return Verify("")(ctx, whole) },
		func(ctx context.Context, proven bool) error {
			return Status(ctx, env.With(!proven)) // a failure's advice says what to do next
		})
}

// closing ends sm:lab: whatever the proofs say, the status follows, since it shows what is not ready where a claim is
// not proven. The exit code is that of the proofs first.
func closing(
	ctx context.Context, verify func(context.Context) error, status func(ctx context.Context, proven bool) error,
) error {
	failed := verify(ctx)
	if ctx.Err() != nil {
		return failed
	}
	return errors.Join(failed, status(ctx, failed == nil))
}
