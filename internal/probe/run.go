package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe/traffic"
)

// Run judges every claim that the lessons make, on traffic where env has a World, else on configuration. Claims without
// that kind of evidence are left out, which the report says. An error means that nothing could be judged at all;
// whatever goes wrong with a single claim is that claim's evidence. When ctx ends, the claims judged so far are
// returned with ctx's cause.
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
	decide := env.measure
	if env.World == nil {
		report.Evidence, report.Error = OnConfiguration, 0
		report.Facts = append(slices.Clone(env.Facts), Fact{"evidence", configurationEvidence})
		if decide, err = env.inspector(ctx); err != nil {
			return report, err
		}
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
		case !claim.When(env.Lessons), len(env.Only) > 0 && !slices.Contains(env.Only, claim.ID):
		case env.World != nil && !claim.HasTraffic(), env.World == nil && !claim.HasConfiguration(env.Lessons):
			report.LeftOut = append(report.LeftOut, claim.ID)
		default:
			asked = append(asked, claim)
		}
	}
	for i, claim := range asked {
		env.Progress("%d/%d %s", i+1, len(asked), claim.Title)
		started := env.Now()
		result := decide(ctx, claim)
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		if result.Verdict != Proven {
			objects, err := env.objects(ctx)
			result.Causes = causes(objects, err, claim, env.Lessons, result)
		}
		result.ID, result.Lesson, result.Learn = claim.ID, claim.Lesson, claim.Learn
		result.Took = env.Now().Sub(started)
		report.Claims = append(report.Claims, result)
		env.Progress("%d/%d %s: %s", i+1, len(asked), claim.Title, result.Verdict)
	}
	return report, nil
}

func (e Env) objects(ctx context.Context) (*mesh.Objects, error) {
	if e.World != nil {
		return e.World.Objects(ctx)
	}
	return e.Configuration.Objects(ctx)
}

// measure sends the requests of one claim and judges it.
func (e Env) measure(ctx context.Context, claim Claim) Result {
	ctx, cancel := context.WithTimeoutCause(ctx, claimDeadline,
		fmt.Errorf("the claim took longer than %s", claimDeadline))
	defer cancel()
	result := Result{Title: claim.Title}
	var baseline []time.Duration
	before, beforeErr := e.World.Incarnations(ctx)
	for _, shot := range claim.Controls {
		if e.cannotControl(shot) {
			continue
		}
		baseline = e.fire(ctx, shot, true, &result, baseline)
	}
	e.fire(ctx, claim.Shot, false, &result, baseline)
	after, afterErr := e.World.Incarnations(ctx)
	result.Verdict = conclude(result.Checks)
	if trouble := restarted(before, after, errors.Join(beforeErr, afterErr)); trouble != "" {
		result.Checks = append(result.Checks, Check{"same pods throughout", Inconclusive, trouble})
		result.Verdict = Inconclusive
	}
	return result
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

// attempts is how often a shot is tried when other traffic, or a connection that had to be reopened, spoilt it.
const attempts = 2

// fire sends the requests of a shot and appends what was measured and found. baseline are latencies of requests that
// nothing delays; those of this shot are returned where it measures them, else the same.
func (e Env) fire(
	ctx context.Context, shot Shot, control bool, result *Result, baseline []time.Duration,
) []time.Duration {
	for attempt := 1; ; attempt++ {
		measured, checks := e.once(ctx, shot, control, baseline)
		if attempt < attempts && spoilt(checks) && ctx.Err() == nil {
			e.Progress("other traffic used the waypoint during the measurement; measuring once more")
			continue
		}
		for i := range checks {
			if control {
				checks[i].Name = "control: " + checks[i].Name
			}
			if attempt > 1 {
				checks[i].Text += fmt.Sprintf(" (measured %d times)", attempt)
			}
		}
		result.Checks = append(result.Checks, checks...)
		result.Measured = append(result.Measured, measured)
		if shot.Expect.Prompt && len(measured.Replies) > 0 {
			return latencies(measured.Replies)
		}
		return baseline
	}
}

// spoilt tells whether the only trouble is one that another try may not have.
func spoilt(checks []Check) bool {
	found := false
	for _, c := range checks {
		if c.Verdict == Refuted {
			return false
		}
		found = found || (c.Verdict == Inconclusive && c.Name == throughCheck)
	}
	return found
}

func (e Env) once(ctx context.Context, shot Shot, control bool, baseline []time.Duration) (Measurement, []Check) {
	load := e.load(shot)
	m := Measurement{
		Run: load.Run, Who: shot.Caller, Method: load.Method, Path: load.Path, Control: control, Sent: load.Count,
		Statuses: map[string]int{},
	}
	failed := func(doing string, err error) (Measurement, []Check) {
		return m, []Check{{"measured", Inconclusive, fmt.Sprintf("%s: %v", doing, err)}}
	}
	sender, err := e.World.Caller(ctx, shot.Caller)
	if err != nil {
		return failed("the caller is not available", err)
	}
	var checks []Check
	if shot.Expect.Body != "" {
		answer, err := sender.Once(ctx, withRun(load, e.NewRun()))
		if err != nil {
			return failed("one request for its body", err)
		}
		m.Body = answer.Body
		checks = append(checks, judgeBody(shot.Expect, answer))
	}
	seen := &observation{}
	if shot.Expect.Route != AnyRoute {
		seen = e.observe(ctx, load.Run)
		defer seen.stop()
	}
	batch, err := sender.Send(ctx, load, nil)
	m.take(batch)
	if err != nil {
		measured, failure := failed("the requests", err)
		return measured, append(checks, failure...)
	}
	if shot.Expect.Route != AnyRoute {
		e.finish(ctx, seen, load, shot.Expect.Route)
	}
	checks = append(checks, judgeStatus(shot.Expect, m, seen))
	if shot.Expect.Route != AnyRoute {
		checks = append(checks, e.judgeRoute(shot, &m, seen)...)
	}
	if shot.Expect.Prompt {
		checks = append(checks, e.judgePrompt(m, seen.own()))
	}
	if shot.Expect.Share {
		checks = append(checks, e.judgeShare(&m, baseline, seen)...)
	}
	return m, checks
}

func withRun(load traffic.Load, run string) traffic.Load {
	load.Run = run
	return load
}

func (m *Measurement) take(batch traffic.Batch) {
	m.Replies, m.Errors, m.Command = batch.Replies, batch.Errors, batch.Command
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

// path gives the path that stands for a placeholder.
func (e Env) path(path string) string {
	fault := e.Lessons.faultOrDefault()
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

// load turns a shot into a batch.
func (e Env) load(s Shot) traffic.Load {
	fault := e.Lessons.faultOrDefault()
	l := traffic.Load{
		Method: s.Method, Path: e.path(s.Path), Host: s.Host, Count: s.Count, Rate: rate, Concurrency: lowConcurrency,
		Timeout: fault.Delay + slack, Run: e.NewRun(),
	}
	if s.Expect.Status == OwnStatus {
		l.Timeout += ownLimit
	}
	switch s.Count {
	case EnoughForShare:
		l.Count, _ = e.share().Samples() // where that is too many, the verdict says so
		l.Concurrency = concurrency
	case EnoughForNone:
		l.Count, l.Concurrency = missed(fault, e.Error), concurrency/2
	}
	return l
}

// missed is how many undelayed requests in a row rule out, at the given error probability, that a delay is still in
// force.
func missed(fault params.Fault, errorProbability float64) int {
	return min(max(runOfUndelayed(min(fault.Share(), 0.99), errorProbability), 20), 500)
}
