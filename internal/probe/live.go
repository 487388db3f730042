package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

// Live is a loop of requests whose responses are shown.
type Live struct {
	// From is who sends, Appa or Gateway; Method and Path what; Path is the fault's when empty.
	From         Caller
	Method, Path string
	// RPS is how many requests a second, 2 when 0; Count how many in all, until ctx ends (at most LiveLimit) when 0.
	RPS   float64
	Count int
	// Out is written to, a line a request. Terminal says that the running histogram may be redrawn below them.
	Out      io.Writer
	Terminal bool
}

// LiveLimit is the number of requests after which every loop ends.
const LiveLimit = 20_000

// span is how long a batch of the loop lasts. The API server does not end a command whose client has disconnected: a
// batch that is being sent when the loop is interrupted ends by itself after that time.
const span = 5 * time.Second

// Summary is what a live loop measured.
type Summary struct {
	Run      string
	Sent     int
	Statuses map[int]int
	// Latencies of the answers, in the order in which they came.
	Latencies []time.Duration
	// Delayed is how many the delay made slow, Slow how many took as long without it.
	Delayed, Slow int
	// Crossed is how many the waypoint logged, by the identity that it saw; nil when it was not looked at.
	Crossed map[string]int
	replies []traffic.Reply
}

// Traffic runs a live loop until its count is reached or ctx ends; the end of ctx is how a user ends it and no error.
func Traffic(ctx context.Context, env Env, live Live) (Summary, error) {
	env, err := env.withDefaults()
	if err != nil {
		return Summary{}, err
	}
	live, err = live.withDefaults(env.Lessons.FaultOrDefault())
	if err != nil {
		return Summary{}, err
	}
	sender, err := env.World.Caller(ctx, live.From)
	if err != nil {
		return Summary{}, fmt.Errorf("finding the caller %s: %w", live.From, err)
	}
	screen := screen{out: live.Out, terminal: live.Terminal, delay: env.Lessons.FaultOrDefault().Delay}
	summary := Summary{Run: env.NewRun(), Statuses: map[int]int{}}
	var watched *watch
	if env.Lessons.On("waypoint") {
		watched = env.watch(context.WithoutCancel(ctx))
		watched.expect(summary.Run)
		defer func() { watched.stop() }()
	}
	screen.printf("%s %s from %s, %g a second; every request has the header %s: %s; Ctrl-C ends\n", live.Method,
		live.Path, live.From, live.RPS, traffic.RunHeader, summary.Run)
	for summary.Sent < live.Count && ctx.Err() == nil {
		before := summary.Sent
		_, err := sender.Send(ctx, live.batch(env, summary), func(r traffic.Reply) {
			summary.add(r)
			screen.reply(r, summary, env.speed(live, r, watched, summary.Run))
		})
		if err != nil && ctx.Err() == nil {
			env.count(live, &summary, watched)
			screen.summary(summary, nil)
			return summary, fmt.Errorf("sending from %s: %w", live.From, err)
		}
		if summary.Sent == before && ctx.Err() == nil {
			return summary, fmt.Errorf("sending from %s: a batch was sent, and no reply was reported", live.From)
		}
	}
	screen.clear()
	err = env.crossed(ctx, watched, &summary)
	env.count(live, &summary, watched)
	screen.summary(summary, err)
	return summary, nil
}

// speed is how long a reply took, compared with the delay.
type speed string

// The speeds. slow is as long as the delay, or longer, where the delay does not explain it: no delay is set for the
// path, the path takes as long by itself, or the waypoint's log does not tell yet how long it takes.
const (
	prompt  speed = ""
	slow    speed = "slow"
	delayed speed = "delayed"
)

// speed compares a reply with the delay and with how long the path takes by itself.
func (e Env) speed(live Live, r traffic.Reply, w *watch, run string) speed {
	fault := e.Lessons.FaultOrDefault()
	if !late(r, 0, fault.Delay) {
		return prompt
	}
	if e.Lessons.Fault() == nil || !fault.Covers(live.Path) || w == nil {
		return slow
	}
	if own, seen := w.ownTime(run); !seen || !late(r, own.least(), fault.Delay) {
		return slow
	}
	return delayed
}

// late tells whether an answer took at least the delay longer than the path takes by itself.
func late(r traffic.Reply, own, delay time.Duration) bool {
	return stats.Modes{Delay: delay}.Of(r.Latency-own) == stats.Delayed && r.Status != traffic.NoAnswer
}

// count counts the replies by their speed, once all is known that the log tells.
func (e Env) count(live Live, s *Summary, w *watch) {
	s.Delayed, s.Slow = 0, 0
	for _, r := range s.replies {
		switch e.speed(live, r, w, s.Run) {
		case delayed:
			s.Delayed++
		case slow:
			s.Slow++
		case prompt:
		}
	}
}

func (l Live) withDefaults(fault params.Fault) (Live, error) {
	if l.From != Appa && l.From != Gateway {
		return l, fmt.Errorf("traffic comes from %s or %s, not from %q", Appa, Gateway, l.From)
	}
	if l.Method == "" {
		l.Method = "GET"
	}
	if l.Path == "" {
		l.Path = fault.Path
	}
	if l.RPS == 0 {
		l.RPS = 2
	}
	if l.RPS < 0.1 || l.RPS > traffic.MaxRate {
		return l, fmt.Errorf("%g requests a second are outside 0.1 to %g", l.RPS, traffic.MaxRate)
	}
	if l.Count < 0 || l.Count > LiveLimit {
		return l, fmt.Errorf("a count of %d is outside 0 to %d", l.Count, LiveLimit)
	}
	if l.Count == 0 {
		l.Count = LiveLimit
	}
	return l, nil
}

// batch is the next part of the loop. As many requests may be open as are started during one delay, so that delayed
// ones do not hold up the others.
func (l Live) batch(env Env, so Summary) traffic.Load {
	count := min(max(int(l.RPS*span.Seconds()), 1), l.Count-so.Sent, traffic.MaxCount)
	delay := env.Lessons.FaultOrDefault().Delay
	return traffic.Load{
		Method: l.Method, Path: l.Path, Count: count, Rate: l.RPS, Timeout: delay + slack, Run: so.Run,
		Concurrency: min(max(int(math.Ceil(l.RPS*(delay+time.Second).Seconds())), 1), traffic.MaxConcurrency, count),
	}
}

func (s *Summary) add(r traffic.Reply) {
	s.Sent++
	s.Statuses[r.Status]++
	s.Latencies, s.replies = append(s.Latencies, r.Latency), append(s.replies, r)
}

// crossed tells what the waypoint saw, also after an interruption. Lines that come later than that are not waited for.
func (e Env) crossed(ctx context.Context, w *watch, s *Summary) error {
	if w == nil || s.Sent == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logShortWait)
	defer cancel()
	e.finish(ctx, w, map[string]int{s.Run: s.Sent})
	if w.err != nil && !errors.Is(w.err, context.DeadlineExceeded) {
		return w.err
	}
	s.Crossed = map[string]int{}
	for _, c := range w.of(s.Run).mine {
		s.Crossed[c.Principal]++
	}
	return nil
}

// Effect is the first response that shows a lesson, or that it is gone.
type Effect struct {
	// After is how long it took from the call on, Requests how many were sent until then.
	After    time.Duration
	Requests int
}

// FirstDelayed sends requests to the path of a delay until one is delayed.
func FirstDelayed(ctx context.Context, env Env, caller Caller, fault params.Fault) (Effect, error) {
	count := min(max(8, int(3/fault.Share())), 50) // of a small share, so many that one is likely to be delayed
	return until(ctx, env, caller, fault, count, func(slow int) bool { return slow > 0 })
}

// NoneDelayed sends requests to the path of a delay until so many in a row were not delayed that it is no longer in
// force.
func NoneDelayed(ctx context.Context, env Env, caller Caller, fault params.Fault) (Effect, error) {
	return until(ctx, env, caller, fault, missed(fault, 0.001), func(slow int) bool { return slow == 0 })
}

func until(
	ctx context.Context, env Env, caller Caller, fault params.Fault, count int, enough func(slow int) bool,
) (Effect, error) {
	env, err := env.withDefaults()
	if err != nil {
		return Effect{}, err
	}
	sender, err := env.World.Caller(ctx, caller)
	if err != nil {
		return Effect{}, fmt.Errorf("finding the caller %s: %w", caller, err)
	}
	started, sent := env.Now(), 0
	before, beforeErr := env.World.Counters(ctx)
	for {
		batch, err := sender.Send(ctx, traffic.Load{
			Method: "GET", Path: fault.Path, Count: count, Concurrency: count, Rate: rate, AtOnce: true,
			Timeout: fault.Delay + ownLimit, Run: env.NewRun(),
		}, nil)
		switch {
		case ctx.Err() != nil:
			return Effect{}, fmt.Errorf("not within the time limit, in %d requests: %w", sent, context.Cause(ctx))
		case err != nil:
			return Effect{}, fmt.Errorf("after %d requests: %w", sent, err)
		}
		sent += count
		if !slices.ContainsFunc(batch.Replies,
			func(r traffic.Reply) bool { return r.Status != http.StatusForbidden && r.Status != traffic.NoAnswer }) {
			return Effect{}, fmt.Errorf("the requests from %s are answered %s, so there is no delay to wait for",
				caller, statusName(fmt.Sprint(batch.Replies[0].Status)))
		}
		slow := len(slices.DeleteFunc(slices.Clone(batch.Replies),
			func(r traffic.Reply) bool { return !late(r, 0, fault.Delay) }))
		// A path that takes long by itself is slow without a delay; the waypoint counts those that it delayed.
		after, afterErr := env.World.Counters(ctx)
		if afterErr == nil && beforeErr == nil {
			if injected := after.Delayed.Since(before.Delayed); injected.Known {
				slow = min(slow, int(injected.Value))
			}
		}
		if enough(slow) {
			return Effect{After: env.Now().Sub(started), Requests: sent}, nil
		}
		before, beforeErr = after, afterErr
	}
}

// screen writes the lines of a live loop.
type screen struct {
	out      io.Writer
	terminal bool
	delay    time.Duration
	drawn    int // lines of the histogram below the last reply
}

func (s *screen) printf(format string, args ...any) {
	// The writer is the user's screen; when it is gone, the loop ends with its context.
	_, _ = fmt.Fprintf(s.out, format, args...)
}

// clear removes the histogram, so that the next line is written where it began.
func (s *screen) clear() {
	if s.drawn > 0 {
		s.printf("\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *screen) reply(r traffic.Reply, so Summary, took speed) {
	s.clear()
	status := fmt.Sprint(r.Status)
	if r.Status == traffic.NoAnswer {
		status = "---"
	}
	s.printf("%s  #%-5d %s  %9s  %-7s  %s\n", r.At.Local().Format("15:04:05.000"), so.Sent, status,
		r.Latency.Round(100*time.Microsecond), took, answerer(r))
	if s.terminal {
		chart := Histogram(so.Latencies, s.delay, 50)
		s.printf("%s", chart)
		s.drawn = strings.Count(chart, "\n")
	}
}

// answerer names what answered. Where the caller keeps no headers, the status has to tell.
func answerer(r traffic.Reply) string {
	switch {
	case r.By != "":
		return r.By
	case r.Status == traffic.NoAnswer:
		return "no answer (the connection was refused or reset)"
	case r.Status == 403:
		return "the waypoint's policy"
	case r.Status == 503, r.Status == 504:
		return "a proxy that could not reach appb"
	}
	return "appb"
}

func (s *screen) summary(so Summary, lookErr error) {
	s.printf("\n%d requests", so.Sent)
	for _, status := range slices.Sorted(maps.Keys(so.Statuses)) {
		s.printf(", %d × %s", so.Statuses[status], statusName(fmt.Sprint(status)))
	}
	s.printf("\n")
	if so.Sent == 0 {
		return
	}
	low, high := stats.Interval(so.Delayed, so.Sent, 0.05)
	s.printf("%d delayed by %s or longer: %.1f %% (95 %% interval %.1f %% to %.1f %%)\n", so.Delayed, s.delay,
		100*float64(so.Delayed)/float64(so.Sent), 100*low, 100*high)
	if so.Slow > 0 {
		s.printf("%d slow: they took %s or longer, and not because of a delay by the waypoint\n", so.Slow, s.delay)
	}
	s.printf("%s", Histogram(so.Latencies, s.delay, 50))
	switch {
	case lookErr != nil:
		s.printf("the waypoint's log could not be read: %v\n", lookErr)
	case so.Crossed != nil && len(so.Crossed) == 0:
		s.printf("none of them went through the waypoint\n")
	}
	for _, who := range slices.Sorted(maps.Keys(so.Crossed)) {
		name := who
		if name == "" {
			name = "(not in its log)"
		}
		s.printf("%d of them went through the waypoint, with the identity %s\n", so.Crossed[who], name)
	}
}
