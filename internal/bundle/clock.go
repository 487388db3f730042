package bundle

import (
	"context"
	"time"
)

// Clock is the package's source of time; tests have one that does not wait.
type Clock interface {
	Now() time.Time
	// Sleep waits, and ends early with the context's cause.
	Sleep(context.Context, time.Duration) error
}

// systemClock is the machine's clock.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// clockOr gives the clock, or the machine's for nil.
func clockOr(c Clock) Clock {
	if c == nil {
		return systemClock{}
	}
	return c
}
