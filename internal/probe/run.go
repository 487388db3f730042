package probe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ambientlab/internal/probe/traffic"
)

// Run measures every claim that the lessons make. An error means that nothing could be measured at all; whatever goes
// wrong with a single claim is that claim's evidence. When ctx ends, the claims measured so far are returned with
// ctx's cause.
func Run(ctx context.Context, env Env) (report Report, err error) {
	env, err = env.withDefaults()
	if err != nil {
		return Report{}, err
	}
	report = Report{
		Schema: SchemaVersion, Lab: env.Lab, Namespace: env.Namespace, Started: env.Now().UTC(), Lessons: env.Lessons,
		Error: env.Error, Substitutes: env.Substitutes, Facts: env.Facts,
	}
	defer func() {
		report.Took = env.Now().Sub(report.Started)
		tidy, cancel := context.WithTimeout(context.WithoutCancel(ctx), tidyDeadline)
		defer cancel()
		if closing := env.World.Close(tidy); closing != nil {
			err = errors.Join(err, fmt.Errorf("removing the short-lived callers: %w", closing))
		}
	}()
	asked := slices.DeleteFunc(Claims(), func(c Claim) bool {
		return !c.When(env.Lessons) || (len(env.Only) > 0 && !slices.Contains(env.Only, c.ID))
	})
	for i, claim := range asked {
		env.Progress("%d/%d %s", i+1, len(asked), claim.Title)
		result := env.decide(ctx, claim)
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		report.Claims = append(report.Claims, result)
		env.Progress("%d/%d %s: %s", i+1, len(asked), claim.Title, result.Verdict)
	}
	return report, nil
}

// decide measures one claim and judges it.
func (e Env) decide(ctx context.Context, claim Claim) Result {
	started := e.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, claimDeadline, fmt.Errorf("the claim took longer than %s", claimDeadline))
	defer cancel()
	result := Result{ID: claim.ID, Title: claim.Title, Learn: claim.Learn}
	var sight sighting
	before, beforeErr := e.World.Lives(ctx)
	for _, shot := range claim.Controls {
		e.fire(ctx, shot, true, &result, &sight)
	}
	e.fire(ctx, claim.Shot, false, &result, &sight)
	after, afterErr := e.World.Lives(ctx)
	result.Verdict = conclude(result.Checks)
	if trouble := disturbed(before, after, errors.Join(beforeErr, afterErr)); trouble != "" {
		result.Checks = append(result.Checks, Check{"same pods throughout", Inconclusive, trouble})
		result.Verdict = Inconclusive
	}
	if result.Verdict != Proven {
		facts, err := e.World.Facts(ctx)
		result.Causes = causes(facts, err, claim, e.Lessons, result)
	}
	result.Took = e.Now().Sub(started)
	return result
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

func disturbed(before, after []string, err error) string {
	if err != nil {
		return fmt.Sprintf("cannot tell whether a pod was restarted in between: %v", err)
	}
	for _, life := range before {
		if !slices.Contains(after, life) {
			return fmt.Sprintf("pod %s was restarted or replaced in between, so what was measured is not one state of the lab", podOf(life))
		}
	}
	for _, life := range after {
		if !slices.Contains(before, life) {
			return fmt.Sprintf("pod %s appeared in between, so what was measured is not one state of the lab", podOf(life))
		}
	}
	return ""
}

func podOf(life string) string {
	for i, c := range life {
		if c == '/' {
			return life[:i]
		}
	}
	return life
}

// sighting is what the shots of one claim hand on: how long requests take that nothing delays.
type sighting struct{ baseline []time.Duration }

// attempts is how often a shot is tried when somebody else's traffic, or a connection that was opened anew, spoilt it.
const attempts = 2

// fire sends the requests of a shot and appends what was measured and found.
func (e Env) fire(ctx context.Context, shot Shot, control bool, result *Result, sight *sighting) {
	for attempt := 1; ; attempt++ {
		measured, checks := e.once(ctx, shot, control, sight)
		if attempt < attempts && spoilt(checks) && ctx.Err() == nil {
			e.Progress("others used the waypoint meanwhile; measuring once more")
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
		return
	}
}

// spoilt tells whether the only trouble is one that another try may not have.
func spoilt(checks []Check) bool {
	found := false
	for _, c := range checks {
		if c.Verdict == Refuted {
			return false
		}
		found = found || (c.Verdict == Inconclusive && c.Name == crossedCheck)
	}
	return found
}

func (e Env) once(ctx context.Context, shot Shot, control bool, sight *sighting) (Measurement, []Check) {
	load := e.load(shot)
	m := Measurement{
		Run: load.Run, Who: shot.Who, Method: load.Method, Path: load.Path, Control: control, Sent: load.Count,
		Statuses: map[string]int{},
	}
	failed := func(doing string, err error) (Measurement, []Check) {
		return m, []Check{{"measured", Inconclusive, fmt.Sprintf("%s: %v", doing, err)}}
	}
	sender, err := e.World.Caller(ctx, shot.Who)
	if err != nil {
		return failed("the caller is not there", err)
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
	var look *look
	if shot.Expect.Way != anyWay {
		look = e.lookBefore(ctx, load.Run)
		defer look.stop()
	}
	batch, err := sender.Send(ctx, load, nil)
	m.take(batch)
	if err != nil {
		measured, failure := failed("the requests", err)
		return measured, append(checks, failure...)
	}
	checks = append(checks, judgeStatus(shot.Expect, m))
	if shot.Expect.Way != anyWay {
		e.lookAfter(ctx, look, load, shot.Expect.Way)
		checks[len(checks)-1].Text += reasons(shot.Expect, look)
		checks = append(checks, e.judgeWay(shot, &m, look)...)
	}
	if shot.Expect.Prompt {
		checks = append(checks, e.judgePrompt(m))
		sight.baseline = latencies(m.Replies)
	}
	if shot.Expect.Share {
		checks = append(checks, e.judgeShare(&m, sight.baseline, look)...)
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
