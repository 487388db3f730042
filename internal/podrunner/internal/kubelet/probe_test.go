package kubelet

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestTally(t *testing.T) {
	probe := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	for name, c := range map[string]struct {
		good    bool
		results string // + and -
		decided string // whether each result decided
		end     bool
	}{
		"two successes":            {false, "++", "ny", true},
		"a failure between":        {false, "+-++", "nnny", true},
		"three failures":           {true, "---", "nny", false},
		"failures go on":           {true, "----", "nnyy", false},
		"a success between":        {true, "--+--", "nnnnn", true},
		"failed and back":          {true, "---++", "nnyny", true},
		"a single success of many": {false, "+", "n", false},
	} {
		results := newTally(probe, c.good)
		for i, r := range c.results {
			if got := results.add(r == '+'); got != (c.decided[i] == 'y') {
				t.Errorf("%s: result %d decided: %v", name, i, got)
			}
		}
		if results.good != c.end {
			t.Errorf("%s: ends %v", name, results.good)
		}
	}
}

// TestWatch probes often until the first success and then at the probe's period; failures count only at the period.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var probes []time.Duration
		healthy := func() bool {
			after := time.Since(began)
			return after >= 3500*time.Millisecond && after < 20*time.Second
		}
		once := func(context.Context) error {
			probes = append(probes, time.Since(began))
			if healthy() {
				return nil
			}
			return errors.New("not yet")
		}
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var decided []time.Duration
		watch(
			ctx,
			&corev1.Probe{PeriodSeconds: 5, FailureThreshold: 2, InitialDelaySeconds: 1},
			false,
			once,
			func(bool, error) bool {
				decided = append(decided, time.Since(began))
				return true
			},
		)
		if probes[0] != time.Second || decided[0] < 3500*time.Millisecond || decided[0] > 3700*time.Millisecond {
			t.Errorf("first probe after %s, first success after %s", probes[0], decided[0])
		}
		// Two failures in a row at a period of 5 s.
		if len(decided) < 2 || decided[1] != 26*time.Second {
			t.Errorf("decided at %v", decided)
		}
	})
}

// TestBackOff wants the pauses of a kubelet.
func TestBackOff(t *testing.T) {
	var b backOff
	var got []time.Duration
	for range 8 {
		got = append(got, b.pause(time.Second))
	}
	want := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
	for i := range want {
		if got[i] != want[i]*time.Second {
			t.Errorf("pause %d is %s, want %s", i, got[i], want[i]*time.Second)
		}
	}
	if pause := b.pause(backOffReset); pause != 0 {
		t.Errorf("after a long run: %s", pause)
	}
}
