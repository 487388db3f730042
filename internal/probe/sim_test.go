package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// sim is a lab in memory that behaves as ambient does, with the ways in which it goes wrong as switches.
type sim struct {
	actual Lessons // what is really in force, as opposed to what is claimed

	appaOutOfMesh bool // appa's pod with dataplane-mode none
	noIngress     bool // Service appb without ingress-use-waypoint
	scaledToZero  bool // no waypoint pod: traffic goes around (it fails open)
	selector      bool // the policy written with selector: the waypoint ignores it
	deniedEarly   bool // the requests are denied by something that does not count

	foreign       []int // requests of somebody else during the nth batch
	hideCounters  bool  // a stock proxy: no request counters
	hidePrincipal bool  // a log format without the principal
	wrongSeen     string
	retried       bool          // one request of each batch is sent twice
	lost          bool          // the exit status of the callers' command is lost
	restartAfter  string        // name of a pod that is restarted during the claim
	noise         time.Duration // how slow undelayed requests are
	hiccups       int           // how many undelayed requests of a batch are slow all the same
	counterErr    error
	factsErr      error
	closeErr      error
	body          string
	unsent        error
	cancel        context.CancelFunc // called during the first batch

	facts   Facts
	random  *rand.Rand
	batches int
	closed  bool
	counts  observe.Counters
	log     []observe.Crossing

	mutex     sync.Mutex // for the log and those who follow it
	followers []func(observe.Crossing)

	now time.Time
}

func newSim(l Lessons) *sim {
	l = l.withDefaults()
	return &sim{
		actual: l, random: rand.New(rand.NewPCG(1, 2)), now: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC),
		facts: goodFacts(l),
		counts: observe.Counters{
			Requests: observe.Counter{Value: 1000, Known: true}, Denied: observe.Counter{Value: 7, Known: true}, Delayed: observe.Counter{Value: 3, Known: true},
		},
	}
}

func goodFacts(l Lessons) Facts {
	f := Facts{
		UseWaypoint: "appb-waypoint", IngressUseWaypoint: "true", WaypointExists: true, Programmed: true, WaypointReady: 1,
		AppaMeshed: true, AppbMeshed: true, StrictTLS: l.Authz.Strict,
	}
	if l.Authz.On {
		f.Policies = []PolicyFact{{Name: "appb-get-only", Action: "ALLOW", Targets: []string{"Service/appb"}, Layer7: true}}
	}
	if l.Fault.On {
		f.Routes = []RouteFact{{Name: "appb-delay", Hosts: []string{"appb.default.svc.cluster.local"}, Percent: l.Fault.Percent, Delay: l.Fault.Delay.String(), Paths: []string{l.Fault.Path}}}
	}
	return f
}

func (s *sim) env(claimed Lessons) Env {
	n := 0
	return Env{
		Lab: "ambient", Namespace: "default", Lessons: claimed, World: s, Now: func() time.Time { s.now = s.now.Add(time.Millisecond); return s.now },
		After:  func(time.Duration) <-chan time.Time { return time.After(150 * time.Millisecond) },
		NewRun: func() string { n++; return fmt.Sprintf("run%04d", n) },
	}
}

type simCaller struct {
	*sim
	who Caller
}

func (s *sim) Caller(_ context.Context, who Caller) (traffic.Sender, error) {
	if s.unsent != nil {
		return nil, s.unsent
	}
	return simCaller{s, who}, nil
}

func (s *sim) crosses(who Caller) bool {
	switch {
	case !s.actual.Waypoint || s.scaledToZero:
		return false
	case who == Unmeshed || who == AppaDirect || (who == Appa && s.appaOutOfMesh) || (who == Gateway && s.noIngress):
		return false
	}
	return true
}

// answer is what becomes of one request.
func (c simCaller) answer(l traffic.Load) (status int, delayed bool, body string) {
	if l.Host != "" && l.Host != "appb.opssec.in" {
		return http.StatusNotFound, false, ""
	}
	if c.actual.Authz.Strict && !c.crosses(c.who) {
		return traffic.NoAnswer, false, ""
	}
	if c.crosses(c.who) {
		enforced := c.actual.Authz.On && !c.selector
		if enforced && (!c.actual.allows(c.who.account()) || l.Method != http.MethodGet) {
			return http.StatusForbidden, false, traffic.DeniedBody
		}
		f := c.actual.Fault
		if f.On && l.Path == f.Path && c.random.Float64()*100 < f.Percent {
			delayed = true
		}
	}
	return http.StatusOK, delayed, "{}"
}

func (c simCaller) Send(_ context.Context, l traffic.Load, each func(traffic.Reply)) (traffic.Batch, error) {
	c.batches++
	if c.cancel != nil {
		c.cancel()
	}
	batch := traffic.Batch{Load: l, Pod: "p/u/0", Command: "curl " + l.Path}
	for i := range l.Count {
		status, delayed, _ := c.answer(l)
		latency := 3*time.Millisecond + time.Duration(c.random.IntN(4000))*time.Microsecond + c.noise
		if delayed {
			latency += c.actual.Fault.Delay
		} else if i < c.hiccups {
			latency += 1900 * time.Millisecond
		}
		r := traffic.Reply{At: c.now.Add(time.Duration(i) * 12 * time.Millisecond), Latency: latency, Status: status}
		batch.Replies = append(batch.Replies, r)
		if each != nil {
			each(r)
		}
		c.seen(l, status, delayed)
		if c.retried && i == 0 {
			c.seen(l, status, delayed)
		}
	}
	if c.batches <= len(c.foreign) {
		for range c.foreign[c.batches-1] {
			c.counts.Requests.Value++
			c.note(observe.Crossing{Agent: "curl/8", At: c.now.Add(time.Hour)})
		}
	}
	if c.lost {
		return batch, fmt.Errorf("fortio in appa: %w", traffic.ErrStatusLost)
	}
	return batch, nil
}

func (c simCaller) seen(l traffic.Load, status int, delayed bool) {
	if !c.crosses(c.who) || status == http.StatusNotFound {
		return
	}
	principal := "spiffe://cluster.local/ns/default/sa/" + c.who.account()
	if c.wrongSeen != "" {
		principal = c.wrongSeen
	}
	if c.hidePrincipal {
		principal = ""
	}
	c.counts.Requests.Value++
	if status == http.StatusForbidden && !c.deniedEarly {
		c.counts.Denied.Value++
	}
	if delayed {
		c.counts.Delayed.Value++
	}
	c.note(observe.Crossing{Run: l.Run, Agent: traffic.Agent(l.Run), Principal: principal, Status: status, At: c.now})
}

// note writes a line into the waypoint's log.
func (s *sim) note(c observe.Crossing) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.log = append(s.log, c)
	for _, tell := range s.followers {
		tell(c)
	}
}

func (c simCaller) Once(_ context.Context, l traffic.Load) (traffic.Answer, error) {
	if c.lost {
		return traffic.Answer{}, traffic.ErrStatusLost
	}
	status, _, body := c.answer(l)
	if c.sim.body != "" {
		body = c.sim.body
	}
	c.seen(l, status, false)
	return traffic.Answer{Reply: traffic.Reply{Status: status}, Body: body}, nil
}

func (s *sim) Counters(context.Context) (observe.Counters, error) {
	c := s.counts
	if s.actual.Waypoint && !s.scaledToZero {
		c.Pods = []string{"appb-waypoint-1/u/0"}
	}
	if s.hideCounters {
		c.Requests, c.Denied, c.Delayed = observe.Counter{}, observe.Counter{}, observe.Counter{}
	}
	return c, s.counterErr
}

func (s *sim) Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error {
	s.mutex.Lock()
	for _, c := range s.log {
		if !c.At.Before(since) {
			enough(c)
		}
	}
	ended := false
	s.followers = append(s.followers, func(c observe.Crossing) {
		if !ended {
			enough(c)
		}
	})
	s.mutex.Unlock()
	<-ctx.Done()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	ended = true
	return nil
}

func (s *sim) Lives(context.Context) ([]string, error) {
	lives := []string{"appa-1/u1/0", "appb-1/u2/0", "appb-waypoint-1/u3/0"}
	if s.restartAfter != "" && s.batches > 0 {
		for i, l := range lives {
			if podOf(l) == s.restartAfter {
				lives[i] = l[:len(l)-1] + "1"
			}
		}
	}
	return lives, nil
}

func (s *sim) Facts(context.Context) (Facts, error) { return s.facts, s.factsErr }

func (s *sim) Close(context.Context) error {
	s.closed = true
	return s.closeErr
}

var errBroken = errors.New("broken")
