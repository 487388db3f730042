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

// samePodsCheck is the name of the check that no pod was restarted.
const samePodsCheck = "same pods throughout"

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
	crossed := len(l.mine)
	m.Crossed = &crossed
	if shot.Expect.Route == Around {
		return []Check{judgeAround(*m, l)}
	}
	if len(l.after.Pods) == 0 {
		return []Check{{throughCheck, Refuted, "there is no waypoint: it has no pod that is ready"}}
	}
	checks := []Check{judgeThrough(*m, l)}
	if crossed > 0 {
		checks = append(checks, e.judgeIdentity(shot.Caller, m, l))
	}
	if shot.Expect.Counted {
		checks = append(checks, judgeDenied(m, l))
	}
	return checks
}

func judgeAround(m Measurement, l *observation) Check {
	switch counted, logged := l.requests(), l.ours+total(l.others); {
	case len(l.after.Pods) == 0:
		return Check{throughCheck, Proven, "there is no waypoint that the requests could go through"}
	case len(l.mine) > 0:
		return Check{
			throughCheck, Refuted,
			fmt.Sprintf("%d of %d requests went through the waypoint; expected: none", len(l.mine), m.Sent),
		}
	case counted.Known && counted.Value > uint64(logged):
		return Check{
			throughCheck, Inconclusive, fmt.Sprintf("none of the %d requests is in the waypoint's log, but lines of "+
				"it are missing: it counted %d requests and logged %d", m.Sent, counted.Value, logged),
		}
	}
	return Check{throughCheck, Proven, fmt.Sprintf("none of the %d requests is in the waypoint's log", m.Sent)}
}

// requests is how many requests the waypoint counted.
func (l *observation) requests() observe.Counter { return l.after.Requests.Since(l.before.Requests) }

// judgeThrough asks for one line of the log for each request. Where some have none, the counter, which also counts what
// other batches and other traffic sent, tells whether these went through nevertheless: it has counted more requests
// than the batches' lines explain.
func judgeThrough(m Measurement, l *observation) Check {
	crossed, others := len(l.mine), total(l.others)
	counted := l.requests()
	counter := "it has no counter to compare with"
	if counted.Known {
		counter = fmt.Sprintf("all in all it logged %d and counted %d", l.ours+others, counted.Value)
	}
	text := fmt.Sprintf("the waypoint's log holds %d of the %d requests, %s", crossed, m.Sent, counter)
	missing, spare := m.Sent-crossed, int(counted.Value)-l.ours
	switch {
	case missing < 0:
		return Check{
			throughCheck, Inconclusive,
			text + ": a request was sent twice, as callers do when a connection is closed before the answer",
		}
	case missing == 0 && counted.Known && spare < 0:
		return Check{throughCheck, Inconclusive, text + ": the two do not agree"}
	case missing == 0 && others > 0:
		// Every request has its line, so what others sent changes nothing.
		return Check{throughCheck, Proven, text + ", other traffic included" + agents(l.others)}
	case missing == 0:
		return Check{throughCheck, Proven, text}
	case counted.Known && spare >= missing && others > 0:
		return Check{
			throughCheck, Inconclusive,
			text + ": other traffic used the waypoint during the measurement" + agents(l.others),
		}
	case counted.Known && spare >= missing:
		return Check{throughCheck, Inconclusive, text + ": lines of its log are missing"}
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

// judgeDenied asks that the waypoint's policy denied each request, by its log and by its counter of denied requests.
// The counter also counts those of other batches and of other traffic, so it is compared with the whole of the log.
func judgeDenied(m *Measurement, l *observation) Check {
	const name = "counted as denied"
	denied := 0
	for _, c := range l.mine {
		if deniedByPolicy(c) {
			denied++
		}
	}
	m.Denied = &denied
	counted := l.after.Denied.Since(l.before.Denied)
	text := fmt.Sprintf("the waypoint's log says that its policy denied %d of the %d requests; all in all it logged "+
		"%d as denied and counted %d", denied, m.Sent, l.denied, counted.Value)
	switch {
	case !counted.Known:
		return Check{name, Refuted, "the waypoint has no counter of denied requests: it has no policy to enforce"}
	case denied < len(l.mine):
		return Check{name, Refuted, text}
	case counted.Value > uint64(l.denied):
		return Check{name, Inconclusive, text + ": lines of its log are missing"}
	case counted.Value < uint64(l.denied) && len(l.others) > 0:
		return Check{name, Inconclusive, text + ": other traffic was denied during the measurement" + agents(l.others)}
	case counted.Value < uint64(l.denied):
		return Check{name, Refuted, text + ": something else denied them"}
	}
	return Check{name, Proven, text}
}

// judgePrompt tells a delay by the fault from a busy machine: one slow answer of twenty is not what a fault does that
// delays every second request. own is how long the path takes by itself.
func (e Env) judgePrompt(m Measurement, seen *observation) Check {
	const name = "not delayed"
	fault := e.Lessons.FaultOrDefault()
	own := seen.own()
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
	if _, marked := seen.marked(m.Sent); marked == 0 && len(seen.mine) >= m.Sent {
		return Check{name, Inconclusive, text + ", but the waypoint delayed none, by its log: " + busy}
	}
	if stats.AtMost(slow, m.Sent, fault.Share()) <= e.Error {
		return Check{name, Inconclusive, text + ", but far fewer than the fault would delay: " + busy}
	}
	return Check{name, Refuted, text}
}

// sorted is the replies of a batch by mode, in the order in which they were sent.
type sorted struct {
	stats.Modes
	modes []stats.Mode
	// least is how long the path takes by itself at least; beyond are the latencies without it.
	least  time.Duration
	beyond []time.Duration
}

// sort sorts the replies of a batch. baseline are the caller's latencies of requests that nothing delays; how long the
// path itself takes is added to them.
func (e Env) sort(m Measurement, baseline []time.Duration, own ownTimes) (s sorted, err error) {
	s.least = own.least()
	undelayed := slices.Clone(baseline)
	if own.known {
		undelayed = append(undelayed, own.slowest-s.least)
		for i := range baseline {
			undelayed[i] += own.slowest - s.least
		}
	}
	if s.Modes, err = stats.NewModes(e.Lessons.FaultOrDefault().Delay, undelayed); err != nil {
		return s, fmt.Errorf("%w: %s", err, busy)
	}
	for _, r := range slices.SortedStableFunc(slices.Values(m.Replies),
		func(a, b traffic.Reply) int { return a.At.Compare(b.At) }) {
		latency := max(0, r.Latency-s.least)
		s.beyond, s.modes = append(s.beyond, latency), append(s.modes, s.Of(latency))
	}
	return s, nil
}

// verdict judges the share. Answers which belong to neither mode must not matter: the verdict must be the same
// in all ways of counting them. used is how many requests it took.
func (s sorted) verdict(share stats.Share) (verdict Verdict, used int) {
	judge := func(counted ...stats.Mode) (stats.Answer, int) {
		delayed := make([]bool, len(s.modes))
		for i, mode := range s.modes {
			delayed[i] = slices.Contains(counted, mode)
		}
		return share.Judge(delayed)
	}
	without, used := judge(stats.Delayed)
	with, usedWith := judge(stats.Delayed, stats.Between)
	if without != with {
		return Inconclusive, len(s.modes)
	}
	return VerdictOf(without), max(used, usedWith)
}

// VerdictOf gives the verdict on a claim about a share.
func VerdictOf(answer stats.Answer) Verdict {
	return map[stats.Answer]Verdict{
		stats.Fits: Proven, stats.Differs: Refuted, stats.TooFew: Inconclusive,
	}[answer]
}

// marked says, for the requests of a batch in the order in which they came to the waypoint, whether its log marks them
// as delayed (Envoy's response flag DI). It is nil where the log lacks a request or marks none.
func (l *observation) marked(sent int) (delayed []bool, n int) {
	for _, c := range slices.SortedStableFunc(slices.Values(l.mine),
		func(a, b observe.Crossing) int { return a.At.Compare(b.At) }) {
		yes := slices.Contains(strings.Split(c.Flags, ","), "DI")
		if yes {
			n++
		}
		delayed = append(delayed, yes)
	}
	if n == 0 || len(delayed) != sent {
		return nil, n
	}
	return delayed, n
}

// busy is what is said where a machine under load explains slow answers. Such a claim is measured again with less load.
const busy = "the machine seems busy"

// agreed is the verdict on a share by what the caller saw, unless what the waypoint marked as delayed says otherwise:
// on a busy machine, answers are late that nothing delays.
func (e Env) agreed(s sorted, seen *observation) (verdict Verdict, used int, doubt string) {
	verdict, used = s.verdict(e.share())
	marks, n := seen.marked(len(s.modes))
	between := len(s.Sort(s.beyond).Between)
	switch {
	case verdict == Refuted && n > 0 && len(seen.mine) != len(s.modes) && 20*between > len(s.modes):
		return Inconclusive, len(s.modes),
			fmt.Sprintf("; but the waypoint's log holds only %d of them, and %d answers took too long for no delay: %s",
				len(seen.mine), between, busy)
	case marks == nil || verdict == Inconclusive:
		return verdict, used, ""
	}
	switch answer, _ := e.share().Judge(marks); {
	case verdict == Refuted && answer != stats.Differs, verdict == Proven && answer == stats.Differs:
		return Inconclusive, len(s.modes),
			fmt.Sprintf("; but the waypoint delayed %d, by its log: %s", n, busy)
	}
	return verdict, used, ""
}

// sure tells whether more requests would change nothing about the verdict on a share.
func (e Env) sure(m Measurement, baseline []time.Duration, seen *observation) bool {
	s, err := e.sort(m, baseline, seen.own())
	if err != nil {
		return true
	}
	verdict, _, _ := e.agreed(s, seen)
	return verdict != Inconclusive
}

// judgeShare judges the two modes of the latencies: how many were delayed, and by how much.
func (e Env) judgeShare(m *Measurement, baseline []time.Duration, seen *observation) []Check {
	const shareName, delayName = "share delayed", "delay"
	fault, share := e.Lessons.FaultOrDefault(), e.share()
	s, err := e.sort(*m, baseline, seen.own())
	if err != nil {
		return []Check{{shareName, Inconclusive, err.Error()}}
	}
	least, byMode := s.least, s.Sort(s.beyond)
	found := &ShareFound{
		Delayed: len(byMode.Delayed), Of: len(m.Replies), Want: share.Want, Delay: fault.Delay, Error: e.Error,
		Edge: least + s.Edge, Between: len(byMode.Between),
	}
	if len(byMode.Fast) > 0 {
		found.Fast = least + stats.Quantile(byMode.Fast, 0.5)
	}
	found.Low, found.High = stats.Sequence(found.Delayed, found.Of, e.Error)
	if found.Delayed > 0 {
		found.Slow, found.Least = least+stats.Quantile(byMode.Delayed, 0.5), least+byMode.Delayed[0]
	}
	m.Share = found
	verdict, used, doubt := e.agreed(s, seen)
	found.Used = used
	_, marked := seen.marked(found.Of)
	text := fmt.Sprintf(
		"%d of %d requests (%.1f %%) were delayed; the true share lies between %.1f %% and %.1f %% (wrong with "+
			"probability %g), set: %g %%",
		found.Delayed, found.Of, 100*float64(found.Delayed)/float64(found.Of), 100*found.Low, 100*found.High, e.Error,
		float64(fault.Millionths())/10000)
	switch {
	case doubt != "":
		text += doubt
	case verdict == Inconclusive:
		text += "; more requests would be needed to be sure"
	default:
		text += fmt.Sprintf("; sure after %d", used)
	}
	if marked > 0 && doubt == "" {
		text += fmt.Sprintf("; the waypoint's log marks %d as delayed", marked)
	}
	checks := []Check{{shareName, verdict, text}}
	slow := fmt.Sprintf("delayed answers took %s or longer, half of them over %s; the others %s; set: %s",
		found.Least.Round(time.Millisecond), found.Slow.Round(time.Millisecond), found.Fast.Round(time.Millisecond),
		fault.Delay)
	if least > 0 {
		slow += fmt.Sprintf(", above the %s that appb takes", least)
	}
	switch {
	case 20*found.Between > found.Of && marked > 0 && found.Delayed >= marked:
		checks = append(checks, Check{
			delayName, Inconclusive,
			fmt.Sprintf("%d answers took between %s and %s, although the waypoint delayed none of them: %s",
				found.Between, found.Edge.Round(time.Millisecond), least+fault.Delay, busy),
		})
	case 20*found.Between > found.Of:
		checks = append(checks,
			Check{
				delayName, Refuted,
				fmt.Sprintf("%d answers took between %s and %s: too slow for no delay, too fast for this one",
					found.Between, found.Edge.Round(time.Millisecond), least+fault.Delay),
			})
	case found.Delayed == 0:
	case found.Slow-least > fault.Delay*3/2+s.Edge:
		checks = append(checks, Check{delayName, Refuted, slow + ": longer than one delay explains"})
	default:
		checks = append(checks, Check{delayName, Proven, slow})
	}
	return checks
}
