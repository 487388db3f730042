package probe

import (
	"context"
	"sync"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// look is the waypoint before and after a batch, and its log meanwhile.
//
// The log is followed from before the first request on, not read afterwards: with the proxies at debug level it grows
// by some 10 KB a request, the kubelet rotates it at 10 MB, and what was rotated away cannot be read any more.
type look struct {
	run           string
	started       time.Time
	before, after observe.Counters
	err           error
	stop          context.CancelFunc
	ended         chan struct{} // closed when the log is no longer followed

	mutex sync.Mutex
	news  chan struct{} // holds an element when the log has held something new
	mine  []observe.Crossing
	// strangers are the requests of anybody else, by User-Agent.
	strangers map[string]int
	logErr    error
}

func (e Env) lookBefore(ctx context.Context, run string) *look {
	l := &look{run: run, started: e.Now(), strangers: map[string]int{}, news: make(chan struct{}, 1), ended: make(chan struct{})}
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

func (l *look) add(c observe.Crossing) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	switch {
	case c.Run == l.run:
		l.mine = append(l.mine, c)
	case c.At.IsZero() || !c.At.Before(l.started):
		l.strangers[c.Agent]++
	default:
		return
	}
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// seen counts the lines so far: of the batch, and of anybody.
func (l *look) seen() (mine, all int) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	all = len(l.mine)
	for _, n := range l.strangers {
		all += n
	}
	return len(l.mine), all
}

// lookAfter reads the counters at once and then waits for the log, which comes late: as long as the counters say that
// something crossed of which no line has come, and lines keep coming. Where no counter tells that nothing more is to
// come, the log is followed for another while after the last line that was expected.
func (e Env) lookAfter(ctx context.Context, l *look, load traffic.Load, expected way) {
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
	patience := logPatience
	if expected == around || (moved.Known && moved.Value == 0) {
		patience = logGlance
	}
	for {
		mine, all := l.seen()
		switch {
		case moved.Known && mine >= load.Count && uint64(all) >= moved.Value:
			return
		case !moved.Known && mine >= load.Count:
			patience = logGlance // late duplicates would show by then
		}
		select {
		case <-l.news:
			continue
		case <-e.After(patience):
			return
		case <-l.ended:
			return
		case <-ctx.Done():
			l.err = context.Cause(ctx)
			return
		}
	}
}
