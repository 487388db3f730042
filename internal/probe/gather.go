package probe

import (
	"context"
	"fmt"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// Gather gathers evidence beyond what the callers and the waypoint tell, such as a node proxy's counters. It is called
// before the requests are sent. What it returns judges them once all are answered.
type Gather func(ctx context.Context, site Site) (judge Judge, err error)

// Judge judges a batch of requests on further evidence, as soon as they are answered: no other requests have been sent
// by then. What has to be waited for, such as counters that an add-on has not read yet, is for later, if that is not
// nil: other claims are measured meanwhile.
type Judge func(ctx context.Context, m Measurement) (checks []Check, later Later)

// Later waits for further evidence and judges it.
type Later func(ctx context.Context) []Check

// Site is what may be looked at for further evidence.
type Site struct {
	Cluster                traffic.Cluster
	Namespace, TrustDomain string
	Lessons                Lessons
	// Counters reads the waypoint's counters.
	Counters func(context.Context) (observe.Counters, error)
	// Run is the run ID that the requests carry.
	Run string
	// Error is the probability of a wrong answer that is accepted.
	Error float64
}

// Principal is the identity of a service account of the applications' namespace, as Istio's policies write it.
func (s Site) Principal(account string) string {
	return names.Principal(s.TrustDomain, s.Namespace, account)
}

// gather prepares the judges of a shot.
func (e Env) gather(ctx context.Context, shot Shot, run string) (Judge, error) {
	if shot.Gather == nil {
		return func(context.Context, Measurement) ([]Check, Later) { return nil, nil }, nil
	}
	judge, err := shot.Gather(ctx, Site{
		Cluster: e.World.Cluster(), Counters: e.World.Counters, Namespace: e.Namespace, TrustDomain: e.TrustDomain,
		Lessons: e.Lessons, Run: run, Error: e.Error,
	})
	if err != nil {
		return nil, fmt.Errorf("further evidence: %w", err)
	}
	return judge, nil
}
