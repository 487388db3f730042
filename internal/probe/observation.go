package probe

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/probe/observe"
)

// watch follows the waypoint while batches are sent, several at a time: its counters before and after, and its log in
// between. A line belongs to a batch by the run ID that its requests carry.
//
// Its output is followed from before the first request on, and its log not read afterwards: with the proxies at debug
// level that grows by some 10 KB a request, the kubelet rotates it at 10 MB, and what was rotated away cannot be read
// any more.
type watch struct {
	started       time.Time
	before, after observe.Counters
	err           error
	stop          context.CancelFunc
	ended         chan struct{} // closed when the log is no longer followed

	mutex  sync.Mutex
	news   chan struct{} // closed and replaced when a line of the log was added
	runs   map[string][]observe.Crossing
	own    map[string]ownTimes
	lines  int // of all runs
	denied int // lines of all traffic that say that the policy denied the request
	// others counts the requests of other traffic, by User-Agent.
	others map[string]int
	logErr error
}

// observation is what the waypoint says of one batch, and of all traffic while it was watched.
type observation struct {
	before, after observe.Counters
	err           error
	// mine are the lines of the batch. ours is how many lines all batches have, denied how many of all traffic were
	// denied by the policy.
	mine         []observe.Crossing
	ours, denied int
	// others counts the requests of other traffic, by User-Agent.
	others map[string]int
}

// watch begins to follow the waypoint.
func (e Env) watch(ctx context.Context) *watch {
	w := &watch{
		started: e.Now(), runs: map[string][]observe.Crossing{},
		own: map[string]ownTimes{}, others: map[string]int{}, news: make(chan struct{}),
		ended: make(chan struct{}), stop: func() {},
	}
	w.before, w.err = e.World.Counters(ctx)
	if w.err != nil || len(w.before.Pods) == 0 {
		close(w.ended)
		return w
	}
	following, stop := context.WithCancel(ctx)
	w.stop = stop
	go func() {
		defer close(w.ended)
		err := e.World.Crossings(following, w.started, func(c observe.Crossing) bool {
			w.add(c)
			return false
		})
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.logErr = err
	}()
	return w
}

// expect makes the lines of a run count as those of a batch. It must be called before the first request is sent.
func (w *watch) expect(run string) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if _, known := w.runs[run]; !known {
		w.runs[run] = nil
	}
}

func (w *watch) add(c observe.Crossing) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	_, ours := w.runs[c.Run]
	switch {
	case ours && c.Run != "":
		w.runs[c.Run] = append(w.runs[c.Run], c)
		w.own[c.Run] = w.own[c.Run].with(c)
		w.lines++
	case c.At.IsZero() || !c.At.Before(w.started):
		w.others[c.Agent]++
	default:
		return
	}
	if deniedByPolicy(c) {
		w.denied++
	}
	close(w.news)
	w.news = make(chan struct{})
}

// deniedByPolicy tells whether the waypoint's RBAC filter denied a request (Envoy's response code details begin with
// rbac_access_denied); where the log does not tell, the status has to.
func deniedByPolicy(c observe.Crossing) bool {
	if c.Details == "" {
		return c.Status == 403
	}
	return strings.HasPrefix(c.Details, "rbac_access_denied")
}

// of gives what is known of a batch.
func (w *watch) of(run string) *observation {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return &observation{
		before: w.before, after: w.after, err: w.err, mine: slices.Clone(w.runs[run]),
		ours: w.lines, denied: w.denied, others: maps.Clone(w.others),
	}
}

// progress is what is known of lines that are waited for.
type progress struct {
	// done tells that no more are to be waited for.
	done bool
	// lines is how many there are of those that matter. They are waited for no longer than patience after the last one:
	// other traffic, which may never end, does not prolong that.
	lines    int
	patience time.Duration
}

// await waits until look, which is called with the number of lines of the runs and of all traffic, says that it is done
// or has no more patience.
func (e Env) await(ctx context.Context, w *watch, look func(ours, all int) progress) {
	var last progress
	var limit <-chan time.Time
	for {
		w.mutex.Lock()
		news, ours, all := w.news, w.lines, w.lines+total(w.others)
		w.mutex.Unlock()
		now := look(ours, all)
		if now.done {
			return
		}
		if limit == nil || now != last {
			last, limit = now, e.After(now.patience)
		}
		select {
		case <-news:
		case <-limit:
			return
		case <-w.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// logged waits until the log holds n requests of a run, or seems to have no more.
func (e Env) logged(ctx context.Context, w *watch, run string, n int) {
	e.await(ctx, w, func(ours, _ int) progress {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		return progress{len(w.runs[run]) >= n, ours, logShortWait}
	})
}

// finish reads the counters at once and then waits for the log, which is written late: as long as the counters show
// requests of which no line has been read, or requests of a run (sent says how many went through the waypoint) may
// still be logged. Envoy logs a request when it has ended, so a line of other traffic may come for a request that was
// counted before. Where no counter tells that no more lines will come, the log is followed for logShortWait after the
// last line.
func (e Env) finish(ctx context.Context, w *watch, sent map[string]int) {
	defer func() {
		w.stop()
		<-w.ended
		if w.err == nil {
			w.err = w.logErr
		}
	}()
	if w.err != nil {
		return
	}
	if w.after, w.err = e.World.Counters(ctx); w.err != nil || len(w.after.Pods) == 0 {
		return
	}
	moved := w.after.Requests.Since(w.before.Requests)
	e.await(ctx, w, func(ours, all int) progress {
		w.mutex.Lock()
		missing, others := false, len(w.others) > 0
		for run, n := range sent {
			missing = missing || len(w.runs[run]) < n
		}
		w.mutex.Unlock()
		switch {
		case !moved.Known:
			return progress{false, ours, logShortWait} // late duplicates would show by then
		case uint64(all) < moved.Value:
			return progress{false, all, logWait}
		}
		return progress{!missing || !others, ours, logShortWait}
	})
	if ctx.Err() != nil {
		w.err = context.Cause(ctx)
	}
}

// ownTime gives how long a path takes by itself, by the lines of a run so far. seen is false where there is none.
func (w *watch) ownTime(run string) (own ownTimes, seen bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.own[run], len(w.runs[run]) > 0
}

// own gives the fastest and the slowest time that appb itself took for the requests of the batch, without a delay, as
// the waypoint logged it.
func (l *observation) own() (times ownTimes) {
	for _, c := range l.mine {
		times = times.with(c)
	}
	return times
}

// ownTimes is how long a path takes by itself. known is false where the log does not tell.
type ownTimes struct {
	fastest, slowest time.Duration
	known            bool
}

// with adds a request to the times.
func (o ownTimes) with(c observe.Crossing) ownTimes {
	if !c.OwnKnown {
		return o
	}
	if !o.known || c.Own < o.fastest {
		o.fastest = c.Own
	}
	o.slowest, o.known = max(o.slowest, c.Own), true
	return o
}

// least is how long every request takes at least by itself. Samples may have missed the fastest by as much as they
// differ.
func (o ownTimes) least() time.Duration {
	return max(0, o.fastest-(o.slowest-o.fastest))
}
