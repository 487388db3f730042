// Package probe judges whether the lessons of the lab hold. A claim is data: who sends what and what must become of it,
// and what the proxies' configuration must say. A run sends the requests and reads what came back and what the waypoint
// logged, or where no packets flow reads the configuration, and gives each claim a verdict: proven, refuted or
// inconclusive, with the evidence. Doubt never ends as proven.
package probe

import (
	"context"
	"errors"
	"math"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

// Env is what a run needs.
type Env struct {
	// Lab and Namespace name the lab; TrustDomain is the mesh's, cluster.local when empty.
	Lab, Namespace, TrustDomain string
	Lessons                     Lessons
	Installed                   Installed
	// Claims are what the lessons claim, in the order in which they are judged.
	Claims []Claim
	// World is the cluster's side of the proofs on traffic, Configuration that of the proofs on configuration. One of
	// them is given.
	World         World
	Configuration Configuration
	// Progress, if not nil, is told what is being measured.
	Progress func(format string, args ...any)
	// Now is the clock, time.Now when nil; After its timer, time.After when nil.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Substitutes and Facts go into the report as they are.
	Substitutes []Substitute
	Facts       []Fact
	// Only limits the run to the claims of these IDs; empty means all.
	Only []string
	// Error is the probability of a wrong answer of a claim about a share, 0.001 when 0.
	Error float64
	// Lanes is how many claims are measured side by side; 0 means as many as the delay allows.
	Lanes int
	// NewRun makes run IDs, traffic.NewRun when nil.
	NewRun func() string

	rate float64 // of requests about a share
}

// World is the cluster, as the proofs need it.
type World interface {
	// Caller gives the sender of a caller's requests and makes what it needs, such as a short-lived pod.
	Caller(ctx context.Context, who Caller) (traffic.Sender, error)
	// Counters and Crossings read the waypoint's counters and its access log; see observe.Waypoint. Crossings lasts
	// until ctx ends or enough returns true.
	Counters(ctx context.Context) (observe.Counters, error)
	Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error
	// Incarnations names the pods that a claim depends on (callers, appb, the gateway, the waypoint), with what changes
	// when one is restarted or replaced.
	Incarnations(ctx context.Context) ([]string, error)
	// Objects reads what may be wrong, for a claim that was not proven.
	Objects(ctx context.Context) (*mesh.Objects, error)
	// Cluster is what further evidence is read from; see Gather.
	Cluster() traffic.Cluster
	// Close removes what Caller made.
	Close(ctx context.Context) error
}

// Rates of the batches, and how long the waypoint's log is waited for. Envoy writes its access log at most a second
// late under Istio's agent (--file-flush-interval-msec 1000), and ten seconds late by itself.
const (
	rate           = 60.0
	concurrency    = 20 // requests at a time where some may be slow
	lowConcurrency = 4  // requests at a time where nothing is expected to be slow
	slack          = 8 * time.Second
	ownLimit       = 12 * time.Second // how long a path's own answer may take: httpbin's slowest takes 10 s
	logWait        = 6 * time.Second  // since the last line, while more are expected
	logShortWait   = 2500 * time.Millisecond
	claimDeadline  = 20 * time.Minute
	cleanupTimeout = 30 * time.Second
	// Within is how far from the set one a share must be told from it.
	Within = 0.15
	// furtherRound is the part of the most requests about a share that each further round has, where the first (with
	// which nine of ten right claims are proven) left the verdict open. With one further round, 997 of 1,000 claims
	// about one half are proven.
	furtherRound = 0.4
	// Claims measured side by side: one for each lane of the delay, and not more than maxLanes.
	lane     = 250 * time.Millisecond
	maxLanes = 5
)

func (e Env) withDefaults() (Env, error) {
	if e.World == nil && e.Configuration == nil {
		return e, errors.New("a run of the proofs needs a cluster")
	}
	if e.TrustDomain == "" {
		e.TrustDomain = "cluster.local"
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.After == nil {
		e.After = time.After
	}
	if e.Progress == nil {
		e.Progress = func(string, ...any) {}
	}
	if e.Error == 0 {
		e.Error = 0.001
	}
	if e.Lanes == 0 {
		// The shorter the delay, the more the requests of other claims would blur the difference between a request that
		// is delayed and one that is not.
		e.Lanes = int(min(max(e.Lessons.FaultOrDefault().Delay/lane, 1), maxLanes))
	}
	e.rate = rate
	if e.NewRun == nil {
		e.NewRun = traffic.NewRun
	}
	return e, nil
}

// principal is the identity of a service account, as Istio's policies write it.
func (e Env) principal(account string) string {
	return names.Principal(e.TrustDomain, e.Namespace, account)
}

func (e Env) share() stats.Share {
	return stats.Share{Want: e.Lessons.FaultOrDefault().Share(), Within: Within, Error: e.Error}
}

// portion is the statement about the portion of a shot.
func (e Env) portion(s Shot) stats.Share {
	return stats.Share{Want: s.Portion(e.Lessons), Within: Within, Error: e.Error}
}

// runOfUndelayed is how many requests in a row are all undelayed with at most the given probability, when each is
// delayed with probability share.
func runOfUndelayed(share, probability float64) int {
	return int(math.Ceil(math.Log(probability) / math.Log1p(-share)))
}
