package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// finding is what one look saw: held, or why not and what kind of problem that is.
type finding struct {
	held   bool
	reason string
	kind   problem.Kind
}

func yes() finding { return finding{held: true} }

func no(kind problem.Kind, format string, args ...any) finding {
	return finding{kind: kind, reason: fmt.Sprintf(format, args...)}
}

const (
	// lookEvery is how often a proxy is asked. A gate that opens late is a defect.
	lookEvery = 100 * time.Millisecond
	// explainEvery is how often a look also finds out why not, which asks more of the
	// API server and the proxy.
	explainEvery = time.Second
	// rejectionStands is how long a proxy's refusal must stand to be the last word.
	// istiod may still send something better in the meantime.
	rejectionStands = 3 * time.Second
)

// await looks at once and then every lookEvery until it holds. The first of explains is
// asked now and then why it does not; what it knows better replaces the look's reason.
// The end of ctx ends the wait with a problem that carries the last reason.
func await(ctx context.Context, what string, look, explain func(context.Context) (finding, error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := finding{kind: problem.ConfigNotArrived, reason: "it was not looked at"}
	var better finding // what the latest explain knew
	var explained, refused time.Time
	for {
		seen, err := look(ctx)
		if err == nil && seen.held {
			return nil
		}
		if ctx.Err() == nil {
			last = merge(seen, err)
			if time.Since(explained) >= explainEvery {
				explained = time.Now()
				if better, err = explain(ctx); err != nil {
					better = finding{}
				}
				if better.kind.ID != problem.ConfigRejected.ID {
					refused = time.Time{}
				} else if refused.IsZero() {
					refused = explained
				}
			}
			if better.reason != "" {
				last = better
			}
			engine.Progress(ctx, "%s", last.reason)
		}
		if !refused.IsZero() && time.Since(refused) >= rejectionStands {
			return problem.New(last.kind, nil, "%s: %s", what, last.reason)
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return problem.New(last.kind, nil, "%s: %s", what, last.reason)
			}
			return fmt.Errorf("%s: %s: %w", what, last.reason, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// merge turns a look's error into a reason: what cannot be looked at now may be seen in a
// moment.
func merge(seen finding, err error) finding {
	if err == nil {
		return seen
	}
	if found := problem.All(err); len(found) > 0 {
		if kind, known := problem.Lookup(found[0].ID); known {
			return finding{kind: kind, reason: err.Error()}
		}
	}
	return finding{kind: problem.ClusterUnreachable, reason: err.Error()}
}
