package probe

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/probe/observe"
)

// TestOtherTrafficDoesNotProlongWaiting waits for a line that never comes, while other traffic never ends.
func TestOtherTrafficDoesNotProlongWaiting(t *testing.T) {
	for name, after := range map[string]observe.Counters{
		"counted":     {Pods: []string{"waypoint"}, Requests: known(3)},
		"not counted": {Pods: []string{"waypoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				e := Env{World: countersOnly{after: after}, Now: time.Now, After: time.After}
				w := &watch{
					runs: map[string][]observe.Crossing{}, own: map[string]ownTimes{}, others: map[string]int{},
					news: make(chan struct{}), ended: make(chan struct{}),
					before: observe.Counters{Requests: known(0)},
				}
				w.stop = func() { stop(); close(w.ended) }
				w.expect("mine")
				w.add(observe.Crossing{Run: "mine"})
				go func() {
					for {
						w.add(observe.Crossing{Agent: "curl"})
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
							return
						}
					}
				}()
				began := time.Now()
				e.finish(ctx, w, map[string]int{"mine": 2})
				if took := time.Since(began); took > logWait+logShortWait {
					t.Errorf("waited %s", took)
				}
			})
		})
	}
}

// countersOnly is a world that has counters.
type countersOnly struct {
	World
	after observe.Counters
}

// Counters implements World.
func (c countersOnly) Counters(context.Context) (observe.Counters, error) { return c.after, nil }
