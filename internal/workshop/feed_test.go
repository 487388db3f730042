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
}

func (f *fakeSource) Caller(_ context.Context, who probe.Caller) (traffic.Sender, error) {
	return fakeSender{f, who}, nil
}

func (f *fakeSource) Crossings(ctx context.Context, _ time.Time, enough func(observe.Crossing) bool) error {
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
