package probe

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

// throughCheck is the name of the check that counts the requests that went through the waypoint.
const throughCheck = "went through the waypoint"

func judgeStatus(expect Expect, m Measurement, seen *observation) Check {
	if expect.Status == OwnStatus {
		return judgeOwnStatus(m, seen)
	}
	want := fmt.Sprint(expect.Status)
	if m.Statuses[want] == m.Sent {
		return Check{
			"status", Proven,
			fmt.Sprintf("all %d requests got %s", m.Sent, statusName(want)) + inParentheses(m.Errors),
		}
	}
	return Check{
		"status", Refuted,
		fmt.Sprintf("%d of %d requests got %s; expected: all; instead %s", m.Statuses[want], m.Sent, statusName(want),
			listStatuses(m, want)) +
			inParentheses(m.Errors) + reasons(expect, seen),
	}
}

// judgeOwnStatus asks whether appb gave every answer, with the status that the caller got. What that status is says
// nothing of a delay.
func judgeOwnStatus(m Measurement, seen *observation) Check {
	own := map[string]int{}
	unknown, others := 0, 0
	for _, c := range seen.mine {
		switch c.Details {
		case observe.ViaUpstream:
			own[fmt.Sprint(c.Status)]++
		case "":
			unknown++
		default:
			others++
		}
	}
	text := fmt.Sprintf("the answers were %s%s", listStatuses(m, ""), inParentheses(m.Errors))
	refuted := Check{
		"status", Refuted, text + "; expected: appb's own" +
			reasonsNot(seen, func(c observe.Crossing) bool { return c.Details == observe.ViaUpstream }),
	}
	switch unanswered := m.Statuses[fmt.Sprint(traffic.NoAnswer)]; {
	case unanswered > 0:
		text = fmt.Sprintf("%d of %d requests got no HTTP answer%s", unanswered, m.Sent, inParentheses(m.Errors))
		return Check{"status", Refuted, text}
	case others > 0:
		return refuted
	case len(seen.mine) < m.Sent:
		return Check{
			"status", Inconclusive, fmt.Sprintf("%s; the waypoint's log holds %d of them, "+
				"so that it cannot be said whether all are appb's own", text, len(seen.mine)),
		}
	case unknown > 0:
		return Check{
			"status", Inconclusive,
			text + "; the waypoint's access log does not tell who gave them (no %RESPONSE_CODE_DETAILS%)",
		}
	}
	for status, n := range m.Statuses {
		if own[status] < n {
			return refuted
		}
	}
	return Check{"status", Proven, fmt.Sprintf("all %d answers are appb's own: %s", m.Sent, listStatuses(m, ""))}
}

// listStatuses lists how many answers had which status, but for one status.
func listStatuses(m Measurement, but string) string {
	var all []string
	for _, status := range slices.Sorted(maps.Keys(m.Statuses)) {
		if status != but {
			all = append(all, fmt.Sprintf("%d × %s", m.Statuses[status], statusName(status)))
		}
	}
	return strings.Join(all, ", ")
}

func statusName(status string) string {
	if status == fmt.Sprint(traffic.NoAnswer) {
		return "no HTTP answer"
	}
	return status
}

func inParentheses(errors []string) string {
	if len(errors) == 0 {
		return ""
	}
	return " (" + strings.Join(errors, "; ") + ")"
}

// reasons gives Envoy's reasons for answers that were not expected.
func reasons(expect Expect, seen *observation) string {
	return reasonsNot(seen, func(c observe.Crossing) bool { return c.Status == expect.Status })
}

func reasonsNot(seen *observation, expected func(observe.Crossing) bool) string {
	found := map[string]int{}
	for _, c := range seen.mine {
		if !expected(c) {
			found[fmt.Sprintf("%d %s %s", c.Status, c.Flags, c.Details)]++
		}
	}
	if len(found) == 0 {
		return ""
	}
	var words []string
	for _, reason := range slices.Sorted(maps.Keys(found)) {
		words = append(words, fmt.Sprintf("%d × %s", found[reason], strings.Join(strings.Fields(reason), " ")))
	}
	return "; the waypoint's log says: " + strings.Join(words, ", ")
}

func judgeBody(expect Expect, answer traffic.Answer) Check {
	got := strings.TrimSpace(answer.Body)
	if got == expect.Body {
		return Check{"body", Proven, fmt.Sprintf("the answer reads %q, which is the body of Envoy's RBAC filter", got)}
	}
	return Check{
		"body", Refuted,
		fmt.Sprintf("the answer (%d) reads %q; expected %q", answer.Status, short(got), expect.Body),
	}
}

func short(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}

// judgeRoute compares what was sent with what the waypoint logged and counted.
func (e Env) judgeRoute(shot Shot, m *Measurement, l *observation) []Check {
	if l.err != nil {
		return []Check{{throughCheck, Inconclusive, fmt.Sprintf("the waypoint cannot be observed: %v", l.err)}}
	}
	if !slices.Equal(l.before.Pods, l.after.Pods) {
		return []Check{{throughCheck, Inconclusive, "the waypoint's pods were not the same before and after"}}
	}
	moved := l.after.Requests.Since(l.before.Requests)
	crossed := len(l.mine)
	m.Crossed = &crossed
	if moved.Known {
		m.Counted = &moved.Value
	}
	if shot.Expect.Route == Around {
		return []Check{judgeAround(*m, l)}
	}
	if len(l.after.Pods) == 0 {
		return []Check{{throughCheck, Refuted, "there is no waypoint: it has no pod that is ready"}}
	}
	checks := []Check{judgeThrough(*m, l, moved)}
	if crossed > 0 {
		checks = append(checks, e.judgeIdentity(shot.Caller, m, l))
	}
	if shot.Expect.Counted {
		checks = append(checks, judgeDenied(m, l))
	}
	return checks
}

func judgeAround(m Measurement, l *observation) Check {
	switch {
	case len(l.after.Pods) == 0:
		return Check{throughCheck, Proven, "there is no waypoint that the requests could go through"}
	case len(l.mine) > 0:
		return Check{
			throughCheck, Refuted,
			fmt.Sprintf("%d of %d requests went through the waypoint; expected: none", len(l.mine), m.Sent),
		}
	}
	return Check{throughCheck, Proven, fmt.Sprintf("none of the %d requests is in the waypoint's log", m.Sent)}
}

func judgeThrough(m Measurement, l *observation, moved observe.Counter) Check {
	crossed := len(l.mine)
	counter := "it has no counter to compare with"
	if moved.Known {
		counter = fmt.Sprintf("its own counter moved by %d", moved.Value)
	}
	text := fmt.Sprintf("the waypoint's log holds %d of the %d requests, %s", crossed, m.Sent, counter)
	switch {
	case crossed > m.Sent:
		return Check{
			throughCheck, Inconclusive,
			text + ": a request was sent twice, as callers do when a connection is closed before the answer",
		}
	case crossed == m.Sent && (!moved.Known || moved.Value == uint64(m.Sent)):
		return Check{throughCheck, Proven, text}
	case moved.Known && moved.Value == uint64(m.Sent) && len(l.others) == 0:
		return Check{throughCheck, Inconclusive, text + ": lines of its log are missing, or it counted other traffic"}
	case moved.Known && moved.Value > uint64(crossed) && moved.Value >= uint64(m.Sent):
		return Check{
			throughCheck, Inconclusive,
			text + ": other traffic used the waypoint during the measurement" + agents(l.others),
		}
	case crossed == m.Sent:
		return Check{throughCheck, Inconclusive, text + ": the two do not agree"}
	case crossed == 0:
		return Check{throughCheck, Refuted, text + ": the requests went around it"}
	}
	return Check{throughCheck, Refuted, text + ": the others went around it"}
}

// agents lists User-Agents.
func agents(others map[string]int) string { return inParentheses(slices.Sorted(maps.Keys(others))) }

func (e Env) judgeIdentity(who Caller, m *Measurement, l *observation) Check {
	const name = "identity"
	m.Seen = map[string]int{}
	for _, c := range l.mine {
		m.Seen[c.Principal]++
	}
	want := "spiffe://" + e.principal(who.Account())
	switch {
	case m.Seen[want] == len(l.mine):
		return Check{name, Proven, fmt.Sprintf("the waypoint identified every request as %s", want)}
	case m.Seen[""] == len(l.mine):
		return Check{
			name, Inconclusive,
			"the waypoint's access log does not give the caller's identity (meshConfig.accessLogFormat without " +
				"io.istio.peer_principal)",
		}
	}
	return Check{
		name, Refuted,
		fmt.Sprintf("expected %s, the waypoint identified %s", want,
			strings.Join(slices.Sorted(maps.Keys(m.Seen)), ", ")),
	}
}

func judgeDenied(m *Measurement, l *observation) Check {
	const name = "counted as denied"
	moved := l.after.Denied.Since(l.before.Denied)
	text := fmt.Sprintf("the waypoint's counter of denied requests moved by %d, %d were sent", moved.Value, m.Sent)
	if moved.Known {
		m.Denied = &moved.Value
	}
	switch {
	case !moved.Known:
		return Check{name, Refuted, "the waypoint has no counter of denied requests: it has no policy to enforce"}
	case moved.Value == uint64(m.Sent):
		return Check{name, Proven, text}
	case moved.Value > uint64(m.Sent):
		return Check{
			name, Inconclusive,
			text + ": other requests were denied during the measurement" + agents(l.others),
		}
	}
	return Check{name, Refuted, text}
}

// judgePrompt tells a delay by the fault from a busy machine: one slow answer of twenty is not what a fault does that
// delays every second request. own is how long the path takes by itself.
func (e Env) judgePrompt(m Measurement, own ownTimes) Check {
	const name = "not delayed"
	fault := e.Lessons.faultOrDefault()
	limit := own.least() + fault.Delay*3/4
	slow, worst := 0, time.Duration(0)
	for _, r := range m.Replies {
		worst = max(worst, r.Latency)
		if r.Latency >= limit {
			slow++
		}
	}
	if slow == 0 {
		return Check{
			name, Proven,
			fmt.Sprintf("the slowest of %d answers took %s", m.Sent, worst.Round(time.Millisecond)),
		}
	}
	text := fmt.Sprintf("%d of %d answers took %s or longer; expected: none", slow, m.Sent,
		limit.Round(time.Millisecond))
	if own.known && own.slowest >= limit {
		return Check{name, Inconclusive, fmt.Sprintf("%s, but appb alone took up to %s", text, own.slowest)}
	}
	if stats.AtMost(slow, m.Sent, fault.Share()) <= e.Error {
		return Check{name, Inconclusive, text + ", but far fewer than the fault would delay: the machine seems busy"}
	}
	return Check{name, Refuted, text}
}

// judgeShare judges the two modes of the latencies: how many were delayed, and by how much. baseline are the caller's
// latencies of requests that nothing delays; how long the path itself takes is added to them.
func (e Env) judgeShare(m *Measurement, baseline []time.Duration, seen *observation) []Check {
	const shareName, delayName = "share delayed", "delay"
	fault, share := e.Lessons.faultOrDefault(), e.share()
	own := seen.own()
	least := own.least()
	undelayed := slices.Clone(baseline)
	if own.known {
		undelayed = append(undelayed, own.slowest-least)
		for i := range baseline {
			undelayed[i] += own.slowest - least
		}
	}
	modes, err := stats.NewModes(fault.Delay, undelayed)
	if err != nil {
		return []Check{{shareName, Inconclusive, err.Error()}}
	}
	beyond := latencies(m.Replies)
	for i := range beyond {
		beyond[i] = max(0, beyond[i]-least)
	}
	sorted := modes.Sort(beyond)
	found := &ShareFound{
		Delayed: len(sorted.Delayed), Of: len(m.Replies), Want: share.Want, Delay: fault.Delay, Error: e.Error,
		Edge: least + modes.Edge, Between: len(sorted.Between),
	}
	if len(sorted.Fast) > 0 {
		found.Fast = least + stats.Quantile(sorted.Fast, 0.5)
	}
	found.Low, found.High = stats.Interval(found.Delayed, found.Of, e.Error)
	if found.Delayed > 0 {
		found.Slow, found.Least = least+stats.Quantile(sorted.Delayed, 0.5), least+sorted.Delayed[0]
	}
	m.Share = found
	text := fmt.Sprintf(
		"%d of %d requests (%.1f %%) were delayed; the true share lies between %.1f %% and %.1f %% (wrong with "+
			"probability %g), set: %g %%",
		found.Delayed, found.Of, 100*float64(found.Delayed)/float64(found.Of), 100*found.Low, 100*found.High, e.Error,
		float64(fault.Millionths())/10000)
	if injected := seen.after.Delayed.Since(seen.before.Delayed); injected.Known {
		text += fmt.Sprintf("; Envoy counts %d delays", injected.Value)
	}
	checks := []Check{{shareName, e.shareVerdict(share, found), text}}
	if needed, tooMany := share.Samples(); found.Of < needed || tooMany != nil && checks[0].Verdict != Proven {
		checks[0].Text += "; more requests would be needed to be sure"
	}
	slow := fmt.Sprintf("delayed answers took %s or longer, half of them over %s; the others %s; set: %s",
		found.Least.Round(time.Millisecond), found.Slow.Round(time.Millisecond), found.Fast.Round(time.Millisecond),
		fault.Delay)
	if least > 0 {
		slow += fmt.Sprintf(", above the %s that appb takes", least)
	}
	switch {
	case 20*found.Between > found.Of:
		checks = append(checks,
			Check{
				delayName, Refuted,
				fmt.Sprintf("%d answers took between %s and %s: too slow for no delay, too fast for this one",
					found.Between, found.Edge.Round(time.Millisecond), least+fault.Delay),
			})
	case found.Delayed == 0:
	case found.Slow-least > fault.Delay*3/2+modes.Edge:
		checks = append(checks, Check{delayName, Refuted, slow + ": longer than one delay explains"})
	default:
		checks = append(checks, Check{delayName, Proven, slow})
	}
	return checks
}

// shareVerdict asks that answers which belong to neither mode do not matter: the verdict must be the same whichever way
// they are counted.
func (e Env) shareVerdict(share stats.Share, found *ShareFound) Verdict {
	verdicts := map[stats.Answer]Verdict{stats.Fits: Proven, stats.Differs: Refuted, stats.TooFew: Inconclusive}
	without, with := share.Judge(found.Delayed, found.Of), share.Judge(found.Delayed+found.Between, found.Of)
	if without != with {
		return Inconclusive
	}
	return verdicts[without]
}
