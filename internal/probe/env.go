// Package probe measures whether the lessons of the lab hold. A claim is data: who sends what, and what must become of
// it. A run sends the requests, looks at what came back and at what the waypoint saw, and gives each claim a verdict:
// proven, refuted or inconclusive, with the evidence. Doubt never ends as proven.
package probe

import (
	"context"
	"errors"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

// Env is what a run needs of the world.
type Env struct {
	// Lab and Namespace name the lab; TrustDomain is the mesh's, cluster.local when empty.
	Lab, Namespace, TrustDomain string
	Lessons                     Lessons
	// World is the cluster's side of the proofs.
	World World
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
	// NewRun makes run IDs, traffic.NewRun when nil.
	NewRun func() string
}

// World is the cluster, as the proofs need it.
type World interface {
	// Caller gives the sender of a caller's requests and makes what it needs, such as a short-lived pod.
	Caller(ctx context.Context, who Caller) (traffic.Sender, error)
	// Counters and Crossings look at the waypoint; see observe.Waypoint. Crossings lasts until ctx ends or enough says so.
	Counters(ctx context.Context) (observe.Counters, error)
	Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error
	// Lives names the pods that a claim rests on (callers, appb, the gateway, the waypoint) with their incarnations. A
	// difference between two looks means that one was restarted or replaced.
	Lives(ctx context.Context) ([]string, error)
	// Facts looks for what may be wrong, for a claim that was not proven.
	Facts(ctx context.Context) (Facts, error)
	// Close removes what Caller made.
	Close(ctx context.Context) error
}

// Rates of the batches, and how long is waited for the waypoint's log. Envoy writes its access log at most a second
// late under istio's agent (--file-flush-interval-msec 1000), and ten seconds late by itself.
const (
	rate          = 80.0
	concurrency   = 40
	calm          = 4 // requests at a time where nothing is expected to be slow
	slack         = 8 * time.Second
	logPatience   = 6 * time.Second // since the last line
	logGlance     = 2500 * time.Millisecond
	claimDeadline = 20 * time.Minute
	tidyDeadline  = 30 * time.Second
	within        = 0.15 // a share this far from the one that was set must be told from it
)

func (e Env) withDefaults() (Env, error) {
	if e.World == nil {
		return e, errors.New("a run of the proofs needs a cluster")
	}
	e.Lessons = e.Lessons.withDefaults()
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
	if e.NewRun == nil {
		e.NewRun = traffic.NewRun
	}
	return e, nil
}

// spiffe is the identity that a caller is seen as.
func (e Env) spiffe(who Caller) string {
	return "spiffe://" + e.TrustDomain + "/ns/" + e.Namespace + "/sa/" + who.account()
}

func (e Env) path(path string) string {
	switch path {
	case faultPath:
		return e.Lessons.Fault.Path
	case otherPath:
		return e.Lessons.otherPath()
	}
	return path
}

func (e Env) share() stats.Share {
	return stats.Share{Want: e.Lessons.Fault.Percent / 100, Within: within, Error: e.Error}
}

// load turns a shot into a batch.
func (e Env) load(s Shot) traffic.Load {
	l := traffic.Load{
		Method: s.Method, Path: e.path(s.Path), Host: s.Host, Count: s.Count, Rate: rate, Concurrency: calm,
		Timeout: e.Lessons.Fault.Delay + slack, Run: e.NewRun(),
	}
	switch s.Count {
	case enoughForShare:
		l.Count, _ = e.share().Samples() // where that is too many, the verdict says so
		l.Concurrency = concurrency
	case enoughForNone:
		l.Count, l.Concurrency = e.Lessons.missed(e.Error), concurrency/2
	}
	return l
}
