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

// crossedCheck is the name of the check that counts requests across the waypoint.
const crossedCheck = "crossed the waypoint"

func judgeStatus(expect Expect, m Measurement) Check {
	want := fmt.Sprint(expect.Status)
	text := fmt.Sprintf("%d of %d requests got %s; expected: all", m.Statuses[want], m.Sent, statusWords(want))
	if m.Statuses[want] == m.Sent {
		return Check{"status", Proven, fmt.Sprintf("all %d requests got %s", m.Sent, statusWords(want)) + inWords(m.Errors)}
	}
	var others []string
	for _, status := range slices.Sorted(maps.Keys(m.Statuses)) {
		if status != want {
			others = append(others, fmt.Sprintf("%d × %s", m.Statuses[status], statusWords(status)))
		}
	}
	return Check{"status", Refuted, text + "; instead " + strings.Join(others, ", ") + inWords(m.Errors)}
}

func statusWords(status string) string {
	if status == fmt.Sprint(traffic.NoAnswer) {
		return "no HTTP answer"
	}
	return status
}

func inWords(errors []string) string {
	if len(errors) == 0 {
		return ""
	}
	return " (" + strings.Join(errors, "; ") + ")"
}

// reasons says in Envoy's words why the waypoint answered as was not expected.
func reasons(expect Expect, l *look) string {
	found := map[string]int{}
	for _, c := range l.mine {
		if c.Status != expect.Status {
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
		return Check{"body", Proven, fmt.Sprintf("the answer reads %q, which are the words of Envoy's RBAC filter", got)}
	}
	return Check{"body", Refuted, fmt.Sprintf("the answer (%d) reads %q; expected %q", answer.Status, short(got), expect.Body)}
}

func short(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}

// judgeWay compares what was sent with what the waypoint saw.
func (e Env) judgeWay(shot Shot, m *Measurement, l *look) []Check {
	if l.err != nil {
		return []Check{{crossedCheck, Inconclusive, fmt.Sprintf("the waypoint cannot be looked at: %v", l.err)}}
	}
	if !slices.Equal(l.before.Pods, l.after.Pods) {
		return []Check{{crossedCheck, Inconclusive, "the waypoint's pods were not the same before and after"}}
	}
	moved := l.after.Requests.Since(l.before.Requests)
	crossed := len(l.mine)
	m.Crossed = &crossed
	if moved.Known {
		m.Counted = &moved.Value
	}
	if shot.Expect.Way == around {
		return []Check{judgeAround(*m, l)}
	}
	if len(l.after.Pods) == 0 {
		return []Check{{crossedCheck, Refuted, "there is no waypoint: it has no pod that is ready"}}
	}
	checks := []Check{judgeThrough(*m, l, moved)}
	if crossed > 0 {
		checks = append(checks, e.judgeIdentity(shot.Who, m, l))
	}
	if shot.Expect.Counted {
		checks = append(checks, judgeDenied(m, l))
	}
	return checks
}

func judgeAround(m Measurement, l *look) Check {
	switch {
	case len(l.after.Pods) == 0:
		return Check{crossedCheck, Proven, "there is no waypoint that the requests could cross"}
	case len(l.mine) > 0:
		return Check{crossedCheck, Refuted, fmt.Sprintf("%d of %d requests crossed the waypoint; expected: none", len(l.mine), m.Sent)}
	}
	return Check{crossedCheck, Proven, fmt.Sprintf("none of the %d requests is in the waypoint's log", m.Sent)}
}

func judgeThrough(m Measurement, l *look, moved observe.Counter) Check {
	crossed := len(l.mine)
	counter := "it has no counter to compare with"
	if moved.Known {
		counter = fmt.Sprintf("its own counter moved by %d", moved.Value)
	}
	text := fmt.Sprintf("the waypoint's log holds %d of the %d requests, %s", crossed, m.Sent, counter)
	switch {
	case crossed > m.Sent:
		return Check{crossedCheck, Inconclusive, text + ": a request was sent twice, as callers do when a connection dies under it"}
	case crossed == m.Sent && (!moved.Known || moved.Value == uint64(m.Sent)):
		return Check{crossedCheck, Proven, text}
	case moved.Known && moved.Value > uint64(crossed) && moved.Value >= uint64(m.Sent):
		return Check{crossedCheck, Inconclusive, text + ": somebody else used the waypoint meanwhile" + names(l.strangers)}
	case crossed == m.Sent:
		return Check{crossedCheck, Inconclusive, text + ": the two do not agree"}
	case crossed == 0:
		return Check{crossedCheck, Refuted, text + ": the requests went around it"}
	}
	return Check{crossedCheck, Refuted, text + ": the others went around it"}
}

func names(strangers map[string]int) string {
	if len(strangers) == 0 {
		return ""
	}
	return " (" + strings.Join(slices.Sorted(maps.Keys(strangers)), ", ") + ")"
}

func (e Env) judgeIdentity(who Caller, m *Measurement, l *look) Check {
	const name = "seen as"
	m.Seen = map[string]int{}
	for _, c := range l.mine {
		m.Seen[c.Principal]++
	}
	want := e.spiffe(who)
	switch {
	case m.Seen[want] == len(l.mine):
		return Check{name, Proven, fmt.Sprintf("the waypoint saw every request as %s", want)}
	case m.Seen[""] == len(l.mine):
		return Check{name, Inconclusive, "the waypoint's access log does not tell whom it saw (meshConfig.accessLogFormat without io.istio.peer_principal)"}
	}
	return Check{name, Refuted, fmt.Sprintf("expected %s, the waypoint saw %s", want, strings.Join(slices.Sorted(maps.Keys(m.Seen)), ", "))}
}

func judgeDenied(m *Measurement, l *look) Check {
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
		return Check{name, Inconclusive, text + ": somebody else was denied meanwhile" + names(l.strangers)}
	}
	return Check{name, Refuted, text}
}

// judgePrompt tells a delay by the fault from a machine that was busy: one slow answer of twenty is not what a fault
// does that delays every second request.
func (e Env) judgePrompt(m Measurement) Check {
	const name = "not delayed"
	fault := e.Lessons.Fault
	slow, worst := 0, time.Duration(0)
	for _, r := range m.Replies {
		worst = max(worst, r.Latency)
		if r.Latency >= fault.Delay*3/4 {
			slow++
		}
	}
	if slow == 0 {
		return Check{name, Proven, fmt.Sprintf("the slowest of %d answers took %s", m.Sent, worst.Round(time.Millisecond))}
	}
	text := fmt.Sprintf("%d of %d answers took %s or longer; expected: none", slow, m.Sent, (fault.Delay * 3 / 4).Round(time.Millisecond))
	if stats.AtMost(slow, m.Sent, fault.Percent/100) <= e.Error {
		return Check{name, Inconclusive, text + ", yet far fewer than the fault would delay: the machine seems busy"}
	}
	return Check{name, Refuted, text}
}

// judgeShare judges the two modes of the latencies: how many were delayed, and by how much.
func (e Env) judgeShare(m *Measurement, baseline []time.Duration, l *look) []Check {
	const shareName, delayName = "share delayed", "delay"
	fault, share := e.Lessons.Fault, e.share()
	modes, err := stats.NewModes(fault.Delay, baseline)
	if err != nil {
		return []Check{{shareName, Inconclusive, err.Error()}}
	}
	sorted := modes.Sort(latencies(m.Replies))
	found := &ShareFound{
		Delayed: len(sorted.Delayed), Of: len(m.Replies), Want: share.Want, Error: e.Error, Edge: modes.Edge,
		Fast: stats.Quantile(sorted.Fast, 0.5), Slow: stats.Quantile(sorted.Delayed, 0.5), Between: len(sorted.Between),
	}
	found.Low, found.High = stats.Interval(found.Delayed, found.Of, e.Error)
	if found.Delayed > 0 {
		found.Least = sorted.Delayed[0]
	}
	m.Share = found
	text := fmt.Sprintf("%d of %d requests (%.1f %%) were delayed; the true share lies between %.1f %% and %.1f %% (wrong with probability %g), set: %g %%",
		found.Delayed, found.Of, 100*float64(found.Delayed)/float64(found.Of), 100*found.Low, 100*found.High, e.Error, fault.Percent)
	if l != nil {
		if injected := l.after.Delayed.Since(l.before.Delayed); injected.Known {
			text += fmt.Sprintf("; Envoy counts %d delays", injected.Value)
		}
	}
	checks := []Check{{shareName, e.shareVerdict(share, found), text}}
	if needed, tooMany := share.Samples(); tooMany != nil || found.Of < needed {
		checks[0].Text += "; more requests would be needed to be sure"
	}
	slow := fmt.Sprintf("delayed answers took %s or longer, half of them over %s; the others %s; set: %s",
		found.Least.Round(time.Millisecond), found.Slow.Round(time.Millisecond), found.Fast.Round(time.Millisecond), fault.Delay)
	switch {
	case 20*found.Between > found.Of:
		checks = append(checks, Check{delayName, Refuted, fmt.Sprintf("%d answers took between %s and the %s that were set: too slow for no delay, too fast for this one", found.Between, modes.Edge.Round(time.Millisecond), fault.Delay)})
	case found.Delayed == 0:
	case found.Slow > fault.Delay*3/2+modes.Edge:
		checks = append(checks, Check{delayName, Refuted, slow + ": longer than one delay explains"})
	default:
		checks = append(checks, Check{delayName, Proven, slow})
	}
	return checks
}

// shareVerdict asks that answers which belong to neither mode do not matter: the verdict must be the same whichever
// way they are counted.
func (e Env) shareVerdict(share stats.Share, found *ShareFound) Verdict {
	verdicts := map[stats.Answer]Verdict{stats.Fits: Proven, stats.Differs: Refuted, stats.TooFew: Inconclusive}
	without, with := share.Judge(found.Delayed, found.Of), share.Judge(found.Delayed+found.Between, found.Of)
	if without != with {
		return Inconclusive
	}
	return verdicts[without]
}
