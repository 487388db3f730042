package workshop

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

// Way is how a request travelled to appb.
type Way string

// The ways. Open means that the waypoint's log does not tell yet, Unknown that it cannot be read.
const (
	Open    Way = "open"
	Through Way = "through"
	Around  Way = "around"
	Unknown Way = "unknown"
)

// Request is one request that was sent, and what became of it.
type Request struct {
	Who          probe.Caller
	Method, Path string
	At           time.Time
	Latency      time.Duration
	// Status is the HTTP status, or traffic.NoAnswer.
	Status int
	// Delayed tells whether it took as long as a request that the waypoint delays.
	Delayed bool
	Way     Way
	// Seen is the identity of the caller as the waypoint saw it.
	Seen string

	id   int // of its dots
	run  string
	told time.Time     // when the answer was known here
	late time.Duration // how long after that its line of the log was read
}

// Outcome names what became of a request, for a colour: ok, delayed, refused, none or other.
func (r Request) Outcome() string {
	switch {
	case r.Status == traffic.NoAnswer:
		return "none"
	case r.Status == 403:
		return "refused"
	case r.Delayed:
		return "delayed"
	case r.Status < 300:
		return "ok"
	}
	return "other"
}

// Source sends the requests of a feed and reads the waypoint's log.
type Source interface {
	Caller(ctx context.Context, who probe.Caller) (traffic.Sender, error)
	Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error
}

// Feed sends a few requests a second to appb and tells which way each went. It pauses during a check, since other
// traffic would make the check inconclusive.
type Feed struct {
	mu       sync.Mutex
	connect  func(context.Context) (Source, error)
	look     Look
	paused   int
	idle     chan struct{} // closed when no batch is being started
	starting int
	requests []Request          // the last ones
	runs     []string           // of the last batches
	early    []observe.Crossing // lines of the log that came before their answers
	latest   time.Time          // start of the latest request in the log
	lineAt   time.Time          // when the last line of the log was read
	added    int                // requests so far
	logErr   error
	refollow chan struct{}
	listen   map[chan Request]bool
}

// The feed's rate: each caller starts a batch of batchSize requests every batchEvery. kept is how many requests are
// remembered.
const (
	batchEvery = time.Second
	batchSize  = 3
	kept       = 1500
	// Envoy writes its access log at most a second late under Istio's agent (--file-flush-interval-msec 1000). A
	// request that is not in it after logLag went around the waypoint. While lines come, one of a later request shows
	// that, and is waited for up to logBusy. On a busy machine the lines are later: those of the last lateSpan tell how
	// much. A line that comes later yet corrects the way, for correctable.
	logLag      = 1300 * time.Millisecond
	logBusy     = 3 * time.Second
	lateSpan    = 30 * time.Second
	correctable = time.Minute
	// logAgain is when a log that ended, or could not be read, is read again.
	logAgain = 200 * time.Millisecond
	// keptRuns is how many batches may have requests whose way is not known.
	keptRuns = 64
	// The waypoint sees a request before its answer, or up to skew after its start where their clocks differ. flush is
	// how long after the end of a request a later line must have begun to show that the request's own line would have
	// been written before it.
	skew  = 250 * time.Millisecond
	flush = 20 * time.Millisecond
)

// NewFeed makes a feed that sends through the source that connect gives. nil means that no packets flow.
func NewFeed(connect func(context.Context) (Source, error)) *Feed {
	return &Feed{connect: connect, refollow: make(chan struct{}, 1), listen: map[chan Request]bool{}}
}

// Follow tells the feed what is on: it sends requests where the applications are.
func (f *Feed) Follow(look Look) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if look.Lessons.On("waypoint") != f.look.Lessons.On("waypoint") {
		f.follow()
	}
	f.look = look
}

// Refollow reads the log again where the object that changed may be a pod of the waypoint.
func (f *Feed) Refollow(object string) {
	if strings.HasPrefix(object, "Pod ") && strings.Contains(object, "waypoint") {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.follow()
	}
}

func (f *Feed) follow() {
	select {
	case f.refollow <- struct{}{}:
	default:
	}
}

// Run sends requests until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	if f.connect == nil {
		return
	}
	var loops sync.WaitGroup
	loops.Go(func() { f.log(ctx) })
	for _, who := range []probe.Caller{probe.Gateway, probe.Appa} {
		loops.Go(func() { f.send(ctx, who) })
	}
	loops.Go(func() { f.decide(ctx) })
	loops.Wait()
}

// Pause waits until no request is being started, and lets none start until resume is called.
func (f *Feed) Pause(ctx context.Context) (resume func()) {
	f.mu.Lock()
	f.paused++
	var idle chan struct{}
	if f.starting > 0 {
		if f.idle == nil {
			f.idle = make(chan struct{})
		}
		idle = f.idle
	}
	f.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.paused--
	}
}

// begin tells whether a batch may start now, and with which delay and path.
func (f *Feed) begin() (fault params.Fault, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.paused > 0 || !f.look.Lessons.On("apps") || f.look.NoPackets != "" {
		return fault, false
	}
	f.starting++
	return f.look.Lessons.FaultOrDefault(), true
}

// started is called when the last request of a batch has been started.
func (f *Feed) started() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.starting--; f.starting == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// send starts a batch of one caller every second. A batch whose answers are late does not hold up the next.
func (f *Feed) send(ctx context.Context, who probe.Caller) {
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	var batches sync.WaitGroup
	defer batches.Wait()
	open := make(chan struct{}, 4)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		fault, ok := f.begin()
		if !ok {
			continue
		}
		select {
		case open <- struct{}{}:
		default:
			f.started()
			continue
		}
		batches.Go(func() {
			defer func() { <-open }()
			f.batch(ctx, who, fault)
		})
	}
}

func (f *Feed) batch(ctx context.Context, who probe.Caller, fault params.Fault) {
	// The last request is started this long after the first; a command in a pod takes a moment to begin.
	begun := time.AfterFunc(batchEvery, f.started)
	defer func() {
		if begun.Stop() {
			f.started()
		}
	}()
	source, err := f.connect(ctx)
	if err != nil {
		return
	}
	sender, err := source.Caller(ctx, who)
	if err != nil {
		return
	}
	load := traffic.Load{
		Method: "GET", Path: fault.Path, Count: batchSize, Rate: batchSize / batchEvery.Seconds(),
		Concurrency: batchSize, Timeout: fault.Delay + 8*time.Second, Run: traffic.NewRun(),
	}
	// An error of a batch is not shown: where something is wrong, the requests that failed are.
	_, _ = tapped{sender, f, who}.Send(ctx, load, nil)
}

// Tap gives a World whose requests the feed shows, too.
func (f *Feed) Tap(world probe.World) probe.World { return tappedWorld{world, f} }

type tappedWorld struct {
	probe.World
	feed *Feed
}

// Caller implements probe.World.
func (w tappedWorld) Caller(ctx context.Context, who probe.Caller) (traffic.Sender, error) {
	sender, err := w.World.Caller(ctx, who)
	if err != nil {
		return nil, err
	}
	return tapped{sender, w.feed, who}, nil
}

// tapped is a sender whose requests the feed shows.
type tapped struct {
	traffic.Sender
	feed *Feed
	who  probe.Caller
}

// Send implements traffic.Sender.
func (t tapped) Send(ctx context.Context, load traffic.Load, each func(traffic.Reply)) (traffic.Batch, error) {
	t.feed.mu.Lock()
	t.feed.runs = append(t.feed.runs, load.Run)
	t.feed.runs = t.feed.runs[max(0, len(t.feed.runs)-keptRuns):]
	delay := t.feed.look.Lessons.FaultOrDefault().Delay
	t.feed.mu.Unlock()
	return t.Sender.Send(ctx, load, func(r traffic.Reply) {
		t.feed.Add(Request{
			Who: t.who, Method: load.Method, Path: load.Path, At: r.At, Latency: r.Latency, Status: r.Status,
			Delayed: r.Status != traffic.NoAnswer && r.Latency >= delay-stats.Early(delay), run: load.Run,
		})
		if each != nil {
			each(r)
		}
	})
}

// Add adds a request whose way is not known yet.
func (f *Feed) Add(r Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.added++
	r.Way, r.told, r.id = Open, time.Now(), f.added
	f.requests = append(f.requests, r)
	f.requests = f.requests[max(0, len(f.requests)-kept):]
	f.match()
}

// log follows the waypoint's log while it is on.
func (f *Feed) log(ctx context.Context) {
	for ctx.Err() == nil {
		following, stop := context.WithCancel(ctx)
		go func() {
			select {
			case <-f.refollow:
				stop()
			case <-following.Done():
			}
		}()
		var err error
		if f.logged() {
			err = f.read(following)
		}
		stop()
		f.mu.Lock()
		f.logErr = nil
		if err != nil && ctx.Err() == nil && following.Err() == nil {
			f.logErr = err
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(logAgain):
		}
	}
}

// logged tells whether there is a waypoint whose log can be followed.
func (f *Feed) logged() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.look.Lessons.On("waypoint") && f.look.NoPackets == ""
}

func (f *Feed) read(ctx context.Context) error {
	source, err := f.connect(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	since := f.latest
	f.mu.Unlock()
	if since.IsZero() {
		since = time.Now().Add(-correctable) // requests may have been sent while the connection was made
	}
	return source.Crossings(ctx, since, func(c observe.Crossing) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if slices.Contains(f.runs, c.Run) {
			f.early = append(f.early, c)
		}
		if f.lineAt = time.Now(); c.At.After(f.latest) {
			f.latest = c.At
		}
		f.match()
		return false
	})
}

// match gives each line of the log to the request that it is about: of the same run, the one that was sent last before
// the waypoint saw it. Where no way is open, the line corrects the way of a request. The caller holds the mutex.
func (f *Feed) match() {
	f.early = slices.DeleteFunc(f.early, func(c observe.Crossing) bool {
		var best *Request
		for i := range f.requests {
			r := &f.requests[i]
			if r.Way != Through && r.run == c.Run && r.At.Before(c.At.Add(flush)) &&
				c.At.Sub(r.At) < max(skew, r.Latency+flush) &&
				(best == nil || r.Way == best.Way && r.At.After(best.At) || r.Way == Open && best.Way != Open) {
				best = r
			}
		}
		if best == nil {
			return time.Since(c.At) > correctable // a line whose answer may still come
		}
		best.Seen, best.late = c.Principal, time.Since(best.told)
		f.tell(best, Through)
		return true
	})
}

// patience is how long after its answer a request may still be in the log. The caller holds the mutex.
func (f *Feed) patience() time.Duration {
	wait := logLag
	if time.Since(f.lineAt) < logBusy {
		wait = logBusy
	}
	for _, r := range f.requests {
		if r.late > logLag && time.Since(r.told) < lateSpan {
			wait = max(wait, 2*r.late)
		}
	}
	return wait
}

// tell sets the way of a request and passes it on. The caller holds the mutex.
func (f *Feed) tell(r *Request, way Way) {
	r.Way = way
	for listener := range f.listen {
		select {
		case listener <- *r:
		default: // a surface that is behind misses a dot
		}
	}
}

// decide tells the requests apart that are not in the waypoint's log.
func (f *Feed) decide(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.mu.Lock()
			f.around()
			f.mu.Unlock()
		}
	}
}

func (f *Feed) around() {
	wait := f.patience()
	for i := range f.requests {
		r := &f.requests[i]
		if r.Way != Open {
			continue
		}
		ended := r.At.Add(r.Latency)
		switch {
		case !f.look.Lessons.On("waypoint"), f.latest.After(ended.Add(flush)) && time.Since(r.told) > flush:
			f.tell(r, Around)
		case time.Since(r.told) > wait && f.logErr != nil:
			f.tell(r, Unknown)
		case time.Since(r.told) > wait:
			f.tell(r, Around)
		}
	}
}

// Listen passes each request whose way becomes known, or is corrected, to the channel, until stop is called.
func (f *Feed) Listen() (requests <-chan Request, stop func()) {
	listener := make(chan Request, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listen[listener] = true
	return listener, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listen, listener)
	}
}

// Last gives the last n requests that were answered or ended without an answer, the newest last.
func (f *Feed) Last(n int) []Request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.requests[max(0, len(f.requests)-n):])
}
