package probe

import (
	"context"
	"sync"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// observation is what the waypoint says of a batch: its counters before and after, and its log in between.
//
// The log is followed from before the first request on, not read afterwards: with the proxies at debug level it grows
// by some 10 KB a request, the kubelet rotates it at 10 MB, and what was rotated away cannot be read any more.
type observation struct {
	run           string
	started       time.Time
	before, after observe.Counters
	err           error
	stop          context.CancelFunc
	ended         chan struct{} // closed when the log is no longer followed

	mutex sync.Mutex
	news  chan struct{} // holds an element when a line of the log was added
	mine  []observe.Crossing
	// others counts the requests of other traffic, by User-Agent.
	others map[string]int
	logErr error
}

// observe begins to follow the waypoint's log.
func (e Env) observe(ctx context.Context, run string) *observation {
	l := &observation{
		run: run, started: e.Now(), others: map[string]int{}, news: make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
	l.before, l.err = e.World.Counters(ctx)
	if l.err != nil || len(l.before.Pods) == 0 {
		close(l.ended)
		l.stop = func() {}
		return l
	}
	following, stop := context.WithCancel(ctx)
	l.stop = stop
	go func() {
		defer close(l.ended)
		err := e.World.Crossings(following, l.started, func(c observe.Crossing) bool {
			l.add(c)
			return false
		})
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.logErr = err
	}()
	return l
}

func (l *observation) add(c observe.Crossing) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	switch {
	case c.Run == l.run:
		l.mine = append(l.mine, c)
	case c.At.IsZero() || !c.At.Before(l.started):
		l.others[c.Agent]++
	default:
		return
	}
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// counted counts the lines so far: of the batch, and in all.
func (l *observation) counted() (mine, all int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	all = len(l.mine)
	for _, n := range l.others {
		all += n
	}
	return len(l.mine), all
}

// finish reads the counters at once and then waits for the log, which is written late: as long as the counters show
// requests of which no line has been read, and lines keep coming. Where no counter tells that no more lines will come,
// the log is followed for logShortWait after the last line that was expected.
func (e Env) finish(ctx context.Context, l *observation, load traffic.Load, expected Route) {
	defer func() {
		l.stop()
		<-l.ended
		if l.err == nil {
			l.err = l.logErr
		}
	}()
	if l.err != nil {
		return
	}
	if l.after, l.err = e.World.Counters(ctx); l.err != nil || len(l.after.Pods) == 0 {
		return
	}
	moved := l.after.Requests.Since(l.before.Requests)
	wait := logWait
	if expected == Around || (moved.Known && moved.Value == 0) {
		wait = logShortWait
	}
	for {
		mine, all := l.counted()
		switch {
		case moved.Known && mine >= load.Count && uint64(all) >= moved.Value:
			return
		case !moved.Known && mine >= load.Count:
			wait = logShortWait // late duplicates would show by then
		}
		select {
		case <-l.news:
			continue
		case <-e.After(wait):
			return
		case <-l.ended:
			return
		case <-ctx.Done():
			l.err = context.Cause(ctx)
			return
		}
	}
}

// own gives the fastest and the slowest time that appb itself took for the requests of the batch, without a delay, as
// the waypoint logged it. known is false where the log does not tell.
func (l *observation) own() (times ownTimes) {
	for _, c := range l.mine {
		if !c.OwnKnown {
			continue
		}
		if !times.known || c.Own < times.fastest {
			times.fastest = c.Own
		}
		times.slowest, times.known = max(times.slowest, c.Own), true
	}
	return times
}

// ownTimes is how long a path takes by itself.
type ownTimes struct {
	fastest, slowest time.Duration
	known            bool
}

// least is how long every request takes at least by itself. Samples may have missed the fastest by as much as they
// differ.
func (o ownTimes) least() time.Duration {
	return max(0, o.fastest-(o.slowest-o.fastest))
}
