package mesh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

const (
	// lookEvery is how often a proxy is asked: a proxy's admin interface has no watch.
	lookEvery = 100 * time.Millisecond
	// explainEvery is how often a wait also finds out why a condition is not met, which asks more of the API server and
	// of the proxy.
	explainEvery = time.Second
	// rejectionLasts is how long a proxy's refusal must last to end a wait: istiod may still send something better.
	rejectionLasts = 3 * time.Second
	// detachedLasts is how long an object may have no effect, by its own content or by what Istio's condition says,
	// before that ends a wait: istiod sets its conditions within seconds.
	detachedLasts = 3 * time.Minute
)

// Wait returns when a condition is met. It looks at once and then every lookEvery. The end of ctx ends the wait with a
// problem that gives the latest reason.
func (m *Mesh) Wait(ctx context.Context, c Condition) error {
	p := m.proxies()
	defer p.close()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer engine.Waiting(ctx)()
	latest := problem.New(problem.ConfigNotArrived, nil, "nothing has been looked at yet")
	var better *problem.Problem // what the latest explanation found
	var explained, refused, detached, overlooked time.Time
	var failing apply.Failing
	for {
		found, err := c.look(ctx, p)
		if err == nil && found == nil {
			return nil
		}
		if ctx.Err() == nil {
			latest = reasonOf(found, err)
			if c.explain != nil && time.Since(explained) >= explainEvery {
				explained = time.Now()
				if better, err = c.explain(ctx, p); err != nil {
					better = nil
				}
				if better == nil || better.ID != problem.ConfigRejected.ID {
					refused = time.Time{}
				} else if refused.IsZero() {
					refused = explained
				}
			}
			if better != nil {
				latest = better
			}
			engine.Progress(ctx, "%s", latest.Seen)
			switch {
			case latest.ID != problem.ConfigNotAttached.ID:
				detached = time.Time{}
			case detached.IsZero():
				detached = time.Now()
			}
			if failing.TooLong(latest) || !detached.IsZero() && time.Since(detached) >= detachedLasts {
				return titled(c, latest)
			}
			if overlooked, err = m.overlooked(ctx, c, found, overlooked); err != nil {
				return err
			}
		}
		if !refused.IsZero() && time.Since(refused) >= rejectionLasts {
			return titled(c, latest)
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return titled(c, latest)
			}
			return fmt.Errorf("%s: %s: %w", c.title, latest.Seen, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// overlooked notifies istiod once it has overlooked something for the condition's patience. since is when that was
// first seen; overlooked returns that time for the next look, or the zero time.
func (m *Mesh) overlooked(
	ctx context.Context, c Condition, found *problem.Problem, since time.Time,
) (time.Time, error) {
	switch {
	case c.notify == nil || found == nil || found.ID != problem.GatewayOverlooked.ID:
		return time.Time{}, nil
	case since.IsZero():
		return time.Now(), nil
	case time.Since(since) < c.patience:
		return since, nil
	}
	change, err := c.notify(ctx, m)
	if err != nil {
		return since, err
	}
	engine.Changed(ctx, change)
	return time.Time{}, nil
}

// titled says which condition a problem is about.
func titled(c Condition, found *problem.Problem) *problem.Problem {
	copied := *found
	copied.Seen = c.title + ": " + found.Seen
	return &copied
}

// reasonOf turns the error of a look into a reason: what cannot be read now may be readable at the next look.
func reasonOf(found *problem.Problem, err error) *problem.Problem {
	if err == nil {
		return found
	}
	kind := problem.ClusterUnreachable
	if known := problem.All(err); len(known) > 0 {
		if k, listed := problem.Lookup(known[0].ID); listed {
			kind = k
		}
	}
	return problem.New(kind, nil, "%v", err)
}
