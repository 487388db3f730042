package workshop

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// fakeSource answers each request at once and writes it to the waypoint's log, a moment late, where through is set.
type fakeSource struct {
	mu      sync.Mutex
	through map[probe.Caller]bool
	log     chan observe.Crossing
	since   time.Time // from when on the log was asked for
}

func (f *fakeSource) Caller(_ context.Context, who probe.Caller) (traffic.Sender, error) {
	return fakeSender{f, who}, nil
}

func (f *fakeSource) Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error {
	f.mu.Lock()
	f.since = since
	f.mu.Unlock()
	for {
		select {
		case c := <-f.log:
			enough(c)
		case <-ctx.Done():
			return nil
		}
	}
}

type fakeSender struct {
	source *fakeSource
	who    probe.Caller
}

func (s fakeSender) Send(
	ctx context.Context, load traffic.Load, each func(traffic.Reply),
) (traffic.Batch, error) {
	for range load.Count {
		at := time.Now()
		s.source.mu.Lock()
		through := s.source.through[s.who]
		s.source.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		each(traffic.Reply{At: at, Latency: 5 * time.Millisecond, Status: 200})
		if through {
			line := observe.Crossing{At: at.Add(time.Millisecond), Run: load.Run, Principal: "spiffe://x"}
			time.AfterFunc(900*time.Millisecond, func() {
				select {
				case s.source.log <- line:
				case <-ctx.Done():
				}
			})
		}
		time.Sleep(time.Duration(float64(time.Second)/load.Rate) - 5*time.Millisecond)
	}
	return traffic.Batch{}, nil
}

func (fakeSender) Once(context.Context, traffic.Load) (traffic.Answer, error) {
	return traffic.Answer{}, nil
}

// TestFeedTellsTheWay sends through the waypoint, then around it from one caller: each request is told as it went.
func TestFeedTellsTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{
			through: map[probe.Caller]bool{probe.Appa: true, probe.Gateway: true},
			log:     make(chan observe.Crossing, 100),
		}
		feed := NewFeed(func(context.Context) (Source, error) { return source, nil })
		ctx, cancel := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		loop.Go(func() { feed.Run(ctx) })
		feed.Follow(applications(upTo("waypoint")...))
		told, stop := feed.Listen()
		ways := func(lasts time.Duration) map[probe.Caller]map[Way]int {
			found := map[probe.Caller]map[Way]int{probe.Appa: {}, probe.Gateway: {}}
			for end := time.After(lasts); ; {
				select {
				case r := <-told:
					found[r.Who][r.Way]++
				case <-end:
					return found
				}
			}
		}
		if got := ways(10 * time.Second); got[probe.Appa][Around]+got[probe.Gateway][Around] > 0 ||
			got[probe.Appa][Through] < 20 || got[probe.Gateway][Through] < 20 {
			t.Errorf("all through the waypoint: %v", got)
		}
		source.mu.Lock()
		source.through[probe.Gateway] = false
		source.mu.Unlock()
		changed := time.Now()
		for r := range told {
			if r.Way == Around {
				if took := time.Since(changed); r.Who != probe.Gateway || took > 2*time.Second {
					t.Errorf("%s goes around, told after %s", r.Who, took)
				}
				break
			}
		}
		if got := ways(10 * time.Second); got[probe.Appa][Around] > 0 || got[probe.Gateway][Around] < 20 ||
			got[probe.Appa][Through] < 20 {
			t.Errorf("the gateway around the waypoint: %v", got)
		}
		for _, r := range feed.Last(400) {
			if r.Way == Through && r.Seen != "spiffe://x" {
				t.Errorf("the waypoint's identity is missing: %+v", r)
			}
		}
		// No request starts during a check.
		resume := feed.Pause(ctx)
		before := len(feed.Last(400))
		time.Sleep(4 * time.Second)
		if after := len(feed.Last(400)); after != before {
			t.Errorf("%d requests during a pause", after-before)
		}
		resume()
		ways(3 * time.Second)
		if after := len(feed.Last(400)); after == before {
			t.Error("no request after the pause")
		}
		stop()
		cancel()
		loop.Wait()
	})
}

// TestLateLines reads lines of the log later than they are waited for, as on a busy machine: a way is corrected, and
// later requests are waited for longer.
func TestLateLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &fakeSource{log: make(chan observe.Crossing)}
		feed := NewFeed(func(context.Context) (Source, error) { return source, nil })
		feed.Follow(applications(upTo("waypoint")...))
		feed.Pause(t.Context()) // the test alone adds requests
		ctx, cancel := context.WithCancel(t.Context())
		var loop sync.WaitGroup
		loop.Go(func() { feed.Run(ctx) })
		defer loop.Wait()
		defer cancel()
		feed.mu.Lock()
		feed.runs = []string{"a"}
		feed.mu.Unlock()
		told, stop := feed.Listen()
		defer stop()
		request := func() (at time.Time) {
			at = time.Now()
			feed.Add(Request{Who: probe.Appa, At: at, Status: 200, run: "a"})
			return at
		}
		next := func(want Way, atLeast, atMost time.Duration, since time.Time) int {
			t.Helper()
			r := <-told
			if took := time.Since(since); r.Way != want || took < atLeast || took > atMost {
				t.Errorf("%s after %s, want %s after %s to %s", r.Way, took, want, atLeast, atMost)
			}
			return dots(r)[0].ID
		}
		at := request()
		synctest.Wait()
		source.mu.Lock()
		if since := source.since; since.IsZero() || !since.Before(at) {
			t.Errorf("the log is read from %s on, and a request was sent at %s", since, at)
		}
		source.mu.Unlock()
		wrong := next(Around, logLag, 2*time.Second, at)
		time.Sleep(time.Until(at.Add(4 * time.Second)))
		source.log <- observe.Crossing{At: at, Run: "a"}
		if corrected := next(Through, 4*time.Second, 4*time.Second, at); corrected != wrong {
			t.Errorf("the dot %d is corrected by the dot %d", wrong, corrected)
		}
		at = request()
		time.Sleep(6 * time.Second)
		source.log <- observe.Crossing{At: at, Run: "a"}
		next(Through, 6*time.Second, 6*time.Second, at)
		// The way to the waypoint took most of the time.
		at = time.Now()
		time.Sleep(700 * time.Millisecond)
		feed.Add(Request{Who: probe.Appa, At: at, Latency: 700 * time.Millisecond, Status: 403, run: "a"})
		source.log <- observe.Crossing{At: at.Add(690 * time.Millisecond), Run: "a"}
		next(Through, 700*time.Millisecond, 700*time.Millisecond, at)
		// A line of a later request shows that an earlier one went around.
		at = request()
		time.Sleep(time.Second)
		after := request()
		source.log <- observe.Crossing{At: after, Run: "a"}
		next(Through, time.Second, time.Second, at)
		next(Around, time.Second, 1200*time.Millisecond, at)
	})
}
