package session

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestEnded ends a run for a process that ended during the run and stays away, and for no other.
func TestEnded(t *testing.T) {
	for name, test := range map[string]struct {
		stopped func(after time.Duration) []string
		want    string
		after   time.Duration
	}{
		"all run":         {func(time.Duration) []string { return nil }, "", time.Minute},
		"away before":     {func(time.Duration) []string { return []string{"istiod does not run"} }, "", time.Minute},
		"started again":   {away(10*time.Second, 20*time.Second), "", time.Minute},
		"twice, not long": {away(10*time.Second, 20*time.Second, 25*time.Second, 35*time.Second), "", time.Minute},
		"stays away":      {away(10*time.Second, time.Hour), "podrunner does not run", 25 * time.Second},
		"started, and ends": {
			away(0, 5*time.Second, 10*time.Second, time.Hour), "podrunner does not run", 25 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				got := ended(ctx, func() []string { return test.stopped(time.Since(began)) })
				if took := time.Since(began); got != test.want || took != test.after {
					t.Errorf("%q after %s, want %q after %s", got, took, test.want, test.after)
				}
			})
		})
	}
}

// away is a process that does not run between each two of the times.
func away(times ...time.Duration) func(time.Duration) []string {
	return func(now time.Duration) []string {
		for i := 0; i < len(times); i += 2 {
			if now >= times[i] && now < times[i+1] {
				return []string{"podrunner does not run"}
			}
		}
		return nil
	}
}
