package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/traffic"
)

// Run judges every claim that the lessons make, on traffic where env has a World, else on configuration. Claims without
// that kind of evidence are left out, which the report says. An error means that nothing could be judged at all;
// whatever goes wrong with a single claim is that claim's evidence. When ctx ends, no claim is judged, and the error is
// ctx's cause.
func Run(ctx context.Context, env Env) (report Report, err error) {
	env, err = env.withDefaults()
	if err != nil {
		return Report{}, err
	}
	report = Report{
		Schema: SchemaVersion, Lab: env.Lab, Namespace: env.Namespace, Started: env.Now().UTC(), Lessons: env.Lessons,
		Evidence: OnTraffic, Error: env.Error, Substitutes: env.Substitutes, Facts: env.Facts,
	}
	defer func() { report.Took = env.Now().Sub(report.Started) }()
	decide := env.onTraffic
	if env.World == nil {
		report.Evidence, report.Error = OnConfiguration, 0
		report.Facts = append(slices.Clone(env.Facts), Fact{"evidence", configurationEvidence})
		decide = env.onConfiguration
	} else {
		defer func() {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			if closing := env.World.Close(cleanup); closing != nil {
				err = errors.Join(err, fmt.Errorf("removing the short-lived callers: %w", closing))
			}
		}()
	}
	var asked []Claim
	for _, claim := range env.Claims {
		switch {
		case !claim.When(env.Lessons), claim.Where != nil && !claim.Where(env.Installed),
			!slices.Contains(env.Only, claim.ID) && (len(env.Only) > 0 || claim.OnRequest):
		case env.World != nil && !claim.HasTraffic(), env.World == nil && !claim.HasConfiguration(env.Lessons):
			report.LeftOut = append(report.LeftOut, claim.ID)
		default:
			asked = append(asked, claim)
		}
	}
	results, err := decide(ctx, asked)
	if err != nil {
		return report, err
	}
	objects := sync.OnceValues(func() (*mesh.Objects, error) { return env.objects(ctx) })
	for i, claim := range asked {
		result := &results[i]
		if result.Verdict != Proven {
			objects, err := objects()
			result.Causes = causes(objects, err, claim, report, *result)
		}
		result.ID, result.Lesson, result.Learn = claim.ID, claim.Lesson, claim.Learn
		env.Progress("%d/%d %s: %s", i+1, len(asked), claim.Title, result.Verdict)
	}
	report.Claims = results
	return report, nil
}

func (e Env) objects(ctx context.Context) (*mesh.Objects, error) {
	if e.World != nil {
		return e.World.Objects(ctx)
	}
	return e.Configuration.Objects(ctx)
}

// onTraffic measures the claims. Those that gather further evidence come last, each alone: the counters that they read
// count the requests of every claim. What several of them have to wait for, they wait for side by side.
func (e Env) onTraffic(ctx context.Context, claims []Claim) ([]Result, error) {
	groups := [][]int{nil}
	for i, claim := range claims {
		if claim.Shot.Gather == nil {
			groups[0] = append(groups[0], i)
		} else {
			groups = append(groups, []int{i})
		}
	}
	results := make([]Result, len(claims))
	for _, group := range groups {
		var chosen []Claim
		for _, i := range group {
			chosen = append(chosen, claims[i])
		}
		if len(chosen) == 0 {
			continue
		}
		found, err := e.together(ctx, chosen)
		if err != nil {
			return nil, err
		}
		for n, i := range group {
			results[i] = found[n]
		}
	}
	e.settle(ctx, results)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return results, nil
}

// settle waits for the evidence that came too late for its claim's turn.
func (e Env) settle(ctx context.Context, results []Result) {
	var waiting sync.WaitGroup
	claims := 0
	for i := range results {
		r := &results[i]
		if r.later == nil {
			continue
		}
		claims++
		waiting.Go(func() {
			started := e.Now()
			for _, later := range r.later {
				r.Checks = append(r.Checks, later(ctx)...)
			}
			r.Took += e.Now().Sub(started)
			r.Verdict, r.later = conclude(r.Checks), nil
		})
	}
	if claims > 0 {
		e.Progress("waiting for what the add-ons have of %d claims", claims)
	}
	waiting.Wait()
}

// together measures the claims, and once more those that other traffic, a connection that had to be opened again, a pod
// that was restarted or a busy machine has spoilt, with less load.
func (e Env) together(ctx context.Context, claims []Claim) ([]Result, error) {
	results, err := e.measure(ctx, claims)
	if err != nil {
		return nil, err
	}
	var again []int
	var spoiltClaims []Claim
	for i, result := range results {
		if why, found := spoilt(result.Checks); found {
			again, spoiltClaims = append(again, i), append(spoiltClaims, claims[i])
			e.Progress("disturbed: %s: %s: %s", claims[i].Title, why.Name, why.Text)
		}
	}
	if len(again) == 0 {
		return results, nil
	}
	e.Progress("measuring %d of %d claims again, one after the other", len(again), len(claims))
	e.Lanes, e.rate = 1, rate/4
	second, err := e.measure(ctx, spoiltClaims)
	if err != nil {
		return nil, err
	}
	for n, i := range again {
		for c := range second[n].Checks {
			second[n].Checks[c].Text += " (measured 2 times)"
		}
		second[n].Took += results[i].Took
		results[i] = second[n]
	}
	return results, nil
}

// measure sends the requests of the claims, those of several claims side by side, and judges each. The waypoint is
// watched once for all of them: its log tells the batches apart, and its counters must agree with the whole of the log.
func (e Env) measure(ctx context.Context, claims []Claim) ([]Result, error) {
	before, beforeErr := e.World.Incarnations(ctx)
	w := e.watch(ctx)
	defer w.stop()
	results, batches := make([]Result, len(claims)), make([][]*batch, len(claims))
	lanes := make(chan struct{}, e.Lanes)
	var measuring sync.WaitGroup
	var done atomic.Int32
	for _, i := range longestFirst(claims) {
		lanes <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		measuring.Go(func() {
			defer func() { <-lanes }()
			started := e.Now()
			batches[i] = e.send(ctx, w, claims[i])
			results[i].Took = e.Now().Sub(started)
			e.Progress("requests of %d of %d claims sent: %s", done.Add(1), len(claims), claims[i].Title)
		})
	}
	measuring.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	sent := map[string]int{}
	for _, b := range slices.Concat(batches...) {
		if b.shot.Expect.Route == Through {
			sent[b.m.Run] = b.m.Sent
		}
	}
	e.finish(ctx, w, sent)
	after, afterErr := e.World.Incarnations(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	trouble := restarted(before, after, errors.Join(beforeErr, afterErr))
	for i, claim := range claims {
		results[i].Title = claim.Title
		e.judge(&results[i], batches[i], w)
		if trouble != "" {
			results[i].Checks = append(results[i].Checks, Check{samePodsCheck, Inconclusive, trouble})
			results[i].Verdict, results[i].later = Inconclusive, nil
		}
	}
	return results, nil
}

// longestFirst orders claims by how long they take: those about a share, then those whose caller must be started first.
func longestFirst(claims []Claim) []int {
	order := make([]int, len(claims))
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int {
		switch shot := claims[i].Shot; {
		case shot.Expect.Share:
			return 0
		case shot.Caller == Outsider, shot.Caller == Unmeshed:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(rank(a), rank(b)) })
	return order
}

// cannotControl tells that a shot wants a path that is not delayed, and every path is.
func (e Env) cannotControl(s Shot) bool {
	fault := e.Lessons.Fault()
	return s.Path == OtherPath && s.Expect.Prompt && s.Expect.Status != 403 && fault != nil &&
		fault.Covers(e.path(OtherPath))
}

// conclude lets refuting evidence outweigh doubt, and doubt outweigh proof. A claim with no evidence is not proven.
func conclude(checks []Check) Verdict {
	verdict := Proven
	if len(checks) == 0 {
		return Inconclusive
	}
	for _, c := range checks {
		switch {
		case c.Verdict == Refuted:
			return Refuted
		case c.Verdict == Inconclusive:
			verdict = Inconclusive
		}
	}
	return verdict
}

// restarted says which pod changed between two looks at the pods' incarnations.
func restarted(before, after []string, err error) string {
	if err != nil {
		return fmt.Sprintf("cannot tell whether a pod was restarted during the measurement: %v", err)
	}
	for _, incarnation := range before {
		if !slices.Contains(after, incarnation) {
			return fmt.Sprintf("pod %s was restarted or replaced during the measurement, "+
				"so that not one state of the lab was measured", podOf(incarnation))
		}
	}
	for _, incarnation := range after {
		if !slices.Contains(before, incarnation) {
			return fmt.Sprintf("pod %s was started during the measurement, "+
				"so that not one state of the lab was measured", podOf(incarnation))
		}
	}
	return ""
}

func podOf(incarnation string) string {
	pod, _, _ := strings.Cut(incarnation, "/")
	return pod
}

// spoilt tells whether the only trouble is one that another try may not have, and gives the first check that has it.
func spoilt(checks []Check) (why Check, found bool) {
	for _, c := range checks {
		if c.Verdict == Refuted && !slices.ContainsFunc(checks, restartedCheck) {
			return Check{}, false
		}
		if !found && (restartedCheck(c) || c.Verdict == Inconclusive &&
			(strings.HasSuffix(c.Name, throughCheck) || strings.Contains(c.Text, busy))) {
			why, found = c, true
		}
	}
	return why, found
}

func restartedCheck(c Check) bool { return c.Name == samePodsCheck }

// batch is a shot that was fired, with what came back.
type batch struct {
	shot    Shot
	control bool
	m       Measurement
	answer  *traffic.Answer // to the one request for the body
	// failure says why nothing can be said of the batch; empty where it was sent.
	failure string
	// further is what the shot's Gather found, later what it still waits for.
	further []Check
	later   Later
}

// send fires the controls of a claim, then its shot.
func (e Env) send(ctx context.Context, w *watch, claim Claim) (batches []*batch) {
	ctx, cancel := context.WithTimeoutCause(ctx, claimDeadline,
		fmt.Errorf("the claim took longer than %s", claimDeadline))
	defer cancel()
	var baseline []time.Duration
	for _, shot := range claim.Controls {
		if e.cannotControl(shot) {
			continue
		}
		b := &batch{shot: shot, control: true}
		batches = append(batches, b)
		e.fire(ctx, w, b, baseline)
		baseline = b.baseline(baseline)
	}
	b := &batch{shot: claim.Shot}
	e.fire(ctx, w, b, baseline)
	return append(batches, b)
}

// baseline gives the latencies of requests that nothing delays: those of this batch where it measures them, else those
// of an earlier one.
func (b *batch) baseline(earlier []time.Duration) []time.Duration {
	if b.shot.Expect.Prompt && len(b.m.Replies) > 0 {
		return latencies(b.m.Replies)
	}
	return earlier
}

// fire sends the requests of a shot: of one about a share as many as make its verdict sure, in rounds. What is sure by
// then stays so, whatever is measured afterwards.
func (e Env) fire(ctx context.Context, w *watch, b *batch, baseline []time.Duration) {
	load, most := e.load(b.shot)
	w.expect(load.Run)
	b.m = Measurement{
		Run: load.Run, Who: b.shot.Caller, Method: load.Method, Path: load.Path, Control: b.control,
		Statuses: map[string]int{},
	}
	failed := func(doing string, err error) { b.failure = fmt.Sprintf("%s: %v", doing, err) }
	sender, err := e.World.Caller(ctx, b.shot.Caller)
	if err != nil {
		failed("the caller is not available", err)
		return
	}
	if b.shot.Expect.Body != "" {
		single := withRun(load, e.NewRun())
		w.expect(single.Run)
		answer, err := sender.Once(ctx, single)
		if err != nil {
			failed("one request for its body", err)
			return
		}
		b.m.Body, b.answer = answer.Body, &answer
	}
	judge, err := e.gather(ctx, b.shot, load.Run)
	if err != nil {
		failed("before the requests", err)
		return
	}
	defer func() {
		if b.failure == "" {
			b.further, b.later = judge(ctx, b.m)
		}
	}()
	for {
		received, err := sender.Send(ctx, load, nil)
		b.m.take(load, received)
		if err != nil {
			failed("the requests", err)
			return
		}
		if b.m.Sent >= most {
			return
		}
		load = e.further(load, most-b.m.Sent, most)
		e.logged(ctx, w, load.Run, b.m.Sent)
		if e.sure(b.m, baseline, w.of(load.Run)) {
			return
		}
	}
}

// judge judges what the batches of a claim show.
func (e Env) judge(result *Result, batches []*batch, w *watch) {
	var baseline []time.Duration
	for _, b := range batches {
		checks := e.checks(b, baseline, w.of(b.m.Run))
		for i := range checks {
			if b.control {
				checks[i].Name = "control: " + checks[i].Name
			}
		}
		result.Checks = append(result.Checks, checks...)
		result.Measured = append(result.Measured, b.m)
		if b.later != nil {
			result.later = append(result.later, b.later)
		}
		baseline = b.baseline(baseline)
	}
	result.Verdict = conclude(result.Checks)
}

func (e Env) checks(b *batch, baseline []time.Duration, seen *observation) (checks []Check) {
	if b.answer != nil {
		checks = append(checks, judgeBody(b.shot.Expect, *b.answer))
	}
	if b.failure != "" {
		return append(checks, Check{"measured", Inconclusive, b.failure})
	}
	expect := b.shot.Expect
	checks = append(checks, judgeStatus(expect, b.m, seen))
	if expect.Route != AnyRoute {
		checks = append(checks, e.judgeRoute(b.shot, &b.m, seen)...)
	}
	if expect.Prompt {
		checks = append(checks, e.judgePrompt(b.m, seen))
	}
	if expect.Share {
		checks = append(checks, e.judgeShare(&b.m, baseline, seen)...)
	}
	return append(checks, b.further...)
}

func withRun(load traffic.Load, run string) traffic.Load {
	load.Run = run
	return load
}

// take adds what became of a load.
func (m *Measurement) take(load traffic.Load, batch traffic.Batch) {
	m.Sent, m.Command = m.Sent+load.Count, batch.Command
	m.Replies = append(m.Replies, batch.Replies...)
	for _, text := range batch.Errors {
		if !slices.Contains(m.Errors, text) {
			m.Errors = append(m.Errors, text)
		}
	}
	for _, r := range batch.Replies {
		m.Statuses[fmt.Sprint(r.Status)]++
	}
}

func latencies(replies []traffic.Reply) []time.Duration {
	all := make([]time.Duration, len(replies))
	for i, r := range replies {
		all[i] = r.Latency
	}
	return all
}

// path gives the path for a placeholder.
func (e Env) path(path string) string {
	fault := e.Lessons.FaultOrDefault()
	switch path {
	case FaultPath:
		return fault.Path
	case LongerPath:
		return fault.LongerPath()
	case OtherPath:
		return fault.OtherPath()
	}
	return path
}

// load turns a shot into its first batch; most is how many requests all batches of the shot may have.
func (e Env) load(s Shot) (l traffic.Load, most int) {
	fault := e.Lessons.FaultOrDefault()
	l = traffic.Load{
		Method: s.Method, Path: e.path(s.Path), Host: s.Host, Count: s.Count, Rate: rate, Concurrency: lowConcurrency,
		Timeout: fault.Delay + slack, Run: e.NewRun(), Traced: s.Traced,
	}
	if s.Expect.Status == OwnStatus { // answers may be delayed
		l.Timeout += ownLimit
		l.Concurrency = concurrency
	}
	switch s.Count {
	case EnoughForShare:
		l.Count, most, _ = e.share().Samples() // where that is too many, the verdict says so
		l.Rate, l.Concurrency = e.rate, e.open(e.rate)
		return l.Even(), most
	case EnoughForNone:
		l.Count, l.Concurrency = missed(fault, e.Error), concurrency
	case EnoughForPortion:
		// Half as many again: the share is judged once, after all of them.
		_, most, _ = e.portion(s).Samples()
		l.Count = min(most*3/2, traffic.MaxCount)
		l.Rate, l.Concurrency = traffic.MaxRate, concurrency
	}
	return l, l.Count
}

// further is the next round of requests about a share, of which left may still be sent. Few claims need one, so it may
// be faster than the first.
func (e Env) further(l traffic.Load, left, most int) traffic.Load {
	l.Count = min(left, max(int(furtherRound*float64(most)), 1))
	l.Rate = min(e.rate*5/3, traffic.MaxRate)
	l.Concurrency = e.open(l.Rate)
	return l.Even()
}

// open is how many requests are open at a rate: as many as are delayed, so that none waits for another; some more for a
// busy machine.
func (e Env) open(rate float64) int {
	return min(int(rate*e.Lessons.FaultOrDefault().Delay.Seconds())+lowConcurrency, traffic.MaxConcurrency)
}

// missed is how many undelayed requests in a row rule out, at the given error probability, that a delay is still in
// force.
func missed(fault params.Fault, errorProbability float64) int {
	return min(max(runOfUndelayed(min(fault.Share(), 0.99), errorProbability), 20), 500)
}
