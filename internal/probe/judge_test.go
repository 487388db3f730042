package probe

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/stats"
	"ambientlab/internal/probe/traffic"
)

const appaIdentity = "spiffe://cluster.local/ns/default/sa/appa"

// crossings are n lines of the waypoint's log like c.
func crossings(n int, c observe.Crossing) []observe.Crossing {
	return slices.Repeat([]observe.Crossing{c}, n)
}

// replies are answers that took so long, in milliseconds.
func replies(milliseconds ...int) (all []traffic.Reply) {
	for _, ms := range milliseconds {
		all = append(all, traffic.Reply{Latency: time.Duration(ms) * time.Millisecond, Status: 200})
	}
	return all
}

func known(value uint64) observe.Counter { return observe.Counter{Value: value, Known: true} }

func sum(counts map[int]int) (all int) {
	for _, n := range counts {
		all += n
	}
	return all
}

// expectCheck compares a check with what is right: its verdict, and a part of its text.
func expectCheck(t *testing.T, name string, got Check, verdict Verdict, text string) {
	t.Helper()
	if got.Verdict != verdict || !strings.Contains(got.Text, text) {
		t.Errorf("%s: %s, %q; want %s and %q", name, got.Verdict, got.Text, verdict, text)
	}
}

func TestJudgeStatus(t *testing.T) {
	denied := observe.Crossing{Status: 403, Flags: "-", Details: "rbac_access_denied_matched_policy[none]"}
	for name, tc := range map[string]struct {
		statuses map[string]int
		errors   []string
		mine     []observe.Crossing
		verdict  Verdict
		text     string
	}{
		"all": {map[string]int{"200": 20}, nil, nil, Proven, "all 20 requests got 200"},
		"some": {
			map[string]int{"200": 18, "403": 2},
			nil, crossings(2, denied), Refuted,
			"18 of 20 requests got 200; expected: all; instead 2 × 403; the waypoint's log says: " +
				"2 × 403 - rbac_access_denied_matched_policy[none]",
		},
		"none": {
			map[string]int{"-1": 20},
			[]string{"connection refused"},
			nil, Refuted,
			"0 of 20 requests got 200; expected: all; instead 20 × no HTTP answer (connection refused)",
		},
		"retried": {
			map[string]int{"200": 20},
			[]string{"reset", "eof"},
			nil, Proven,
			"all 20 requests got 200 (reset; eof)",
		},
		"expected": {
			map[string]int{"503": 1, "200": 19},
			nil, crossings(19, observe.Crossing{Status: 200}), Refuted,
			"19 of 20 requests got 200; expected: all; instead 1 × 503",
		},
	} {
		m := Measurement{Sent: 20, Statuses: tc.statuses, Errors: tc.errors}
		got := judgeStatus(Expect{Status: 200}, m, &observation{mine: tc.mine})
		expectCheck(t, name, got, tc.verdict, tc.text)
		if tc.mine == nil && strings.Contains(got.Text, "log") {
			t.Errorf("%s: an empty log gives reasons: %s", name, got.Text)
		}
	}
	if text := reasons(Expect{Status: 200},
		&observation{mine: crossings(3, observe.Crossing{Status: 200})}); text != "" {
		t.Errorf("the expected answers have reasons: %s", text)
	}
}

func TestJudgeOwnStatus(t *testing.T) {
	own := observe.Crossing{Status: 418, Details: observe.ViaUpstream}
	for name, tc := range map[string]struct {
		statuses map[string]int
		mine     []observe.Crossing
		verdict  Verdict
		text     string
	}{
		"all are its own": {
			map[string]int{"418": 3},
			crossings(3, own), Proven,
			"all 3 answers are appb's own: 3 × 418",
		},
		"no answer": {
			map[string]int{"418": 2, "-1": 1},
			crossings(3, own), Refuted,
			"1 of 3 requests got no HTTP answer",
		},
		"no log": {map[string]int{"418": 3}, nil, Inconclusive, "log holds 0 of them"},
		"a log that does not tell": {
			map[string]int{"418": 3},
			append(crossings(2, own), observe.Crossing{Status: 418}), Inconclusive, "does not tell who gave them",
		},
		"one of another": {
			map[string]int{"418": 3},
			append(crossings(2, own), observe.Crossing{Status: 418, Details: "fault_filter_abort"}), Refuted,
			"expected: appb's own; the waypoint's log says: 1 × 418 fault_filter_abort",
		},
		"one of another, a line too many": {
			map[string]int{"418": 3},
			append(crossings(2, own), crossings(2, observe.Crossing{Status: 418, Details: "x"})...), Refuted,
			"appb's own",
		},
		"all are its own, and a line of another": {
			map[string]int{"418": 3},
			append(crossings(3, own), observe.Crossing{Status: 418, Details: "x"}), Refuted,
			"1 × 418 x",
		},
		"a line is missing": {map[string]int{"418": 3}, crossings(2, own), Inconclusive, "log holds 2 of them"},
	} {
		m := Measurement{Sent: 3, Statuses: tc.statuses}
		expectCheck(t, name, judgeStatus(Expect{Status: OwnStatus}, m, &observation{mine: tc.mine}), tc.verdict,
			tc.text)
	}
}

func TestJudgeBody(t *testing.T) {
	expect := Expect{Body: "RBAC: access denied"}
	long := strings.Repeat("0123456789", 6)
	for body, want := range map[string]struct {
		verdict Verdict
		text    string
	}{
		"RBAC: access denied":   {Proven, `"RBAC: access denied"`},
		"RBAC: access denied\n": {Proven, `"RBAC: access denied"`},
		"denied":                {Refuted, `the answer (403) reads "denied"; expected "RBAC: access denied"`},
		long:                    {Refuted, `reads "` + long + `";`},
		long + "x":              {Refuted, `reads "` + long + `…";`},
	} {
		expectCheck(t, body, judgeBody(expect, traffic.Answer{Reply: traffic.Reply{Status: 403}, Body: body}),
			want.verdict, want.text)
	}
}

// The waypoint's log and its counter against what was sent. 90 lines are those of other batches.
func TestJudgeThrough(t *testing.T) {
	for name, tc := range map[string]struct {
		logged  int
		counted observe.Counter
		others  map[string]int
		verdict Verdict
		text    string
	}{
		"all, no counter": {
			10,
			observe.Counter{},
			nil, Proven,
			"holds 10 of the 10 requests, it has no counter",
		},
		"all, counted": {
			10, known(100), nil, Proven,
			"holds 10 of the 10 requests, all in all it logged 100 and counted 100",
		},
		"all, and others": {
			10, known(103),
			map[string]int{"curl": 2, "ab": 1},
			Proven,
			"logged 103 and counted 103, other traffic included (ab; curl)",
		},
		"all, lines of another batch are missing": {10, known(105), nil, Proven, "counted 105"},
		"all, fewer counted":                      {10, known(99), nil, Inconclusive, "do not agree"},
		"one too many":                            {11, known(101), nil, Inconclusive, "sent twice"},
		"one too many, no counter":                {11, observe.Counter{}, nil, Inconclusive, "sent twice"},
		"none":                                    {0, known(90), nil, Refuted, "the requests went around it"},
		"none, no counter":                        {0, observe.Counter{}, nil, Refuted, "the requests went around it"},
		"none, fewer counted":                     {0, known(80), nil, Refuted, "the requests went around it"},
		"some":                                    {4, known(94), nil, Refuted, "the others went around it"},
		"some, no counter":                        {4, observe.Counter{}, nil, Refuted, "the others went around it"},
		"some logged, all counted":                {4, known(100), nil, Inconclusive, "lines of its log are missing"},
		"some logged, more than all counted":      {4, known(101), nil, Inconclusive, "lines of its log are missing"},
		"some logged, fewer counted":              {4, known(99), nil, Refuted, "the others went around it"},
		"some logged, others are as many as are missing": {
			4, known(100),
			map[string]int{"curl": 6},
			Inconclusive,
			"other traffic used the waypoint during the measurement (curl)",
		},
		"some logged, others are fewer than are missing": {
			4, known(99),
			map[string]int{"curl": 5},
			Refuted, "the others went around it",
		},
	} {
		l := &observation{
			mine: crossings(tc.logged, observe.Crossing{}), ours: 90 + tc.logged, others: tc.others,
			before: observe.Counters{Requests: known(1000)}, after: observe.Counters{Requests: tc.counted},
		}
		l.after.Requests.Value += 1000
		expectCheck(t, name, judgeThrough(Measurement{Sent: 10}, l), tc.verdict, tc.text)
	}
}

func TestJudgeAround(t *testing.T) {
	pods := []string{"waypoint/u/0"}
	for name, tc := range map[string]struct {
		l       observation
		verdict Verdict
		text    string
	}{
		"none":          {observation{}, Proven, "none of the 10 requests is in the waypoint's log"},
		"other batches": {observation{ours: 5, after: observe.Counters{Requests: known(5)}}, Proven, "none"},
		"one":           {observation{mine: crossings(1, observe.Crossing{}), ours: 1}, Refuted, "1 of 10"},
		"other traffic": {
			observation{others: map[string]int{"curl": 3}, after: observe.Counters{Requests: known(3)}},
			Proven, "none",
		},
		"fewer counted": {observation{ours: 5, after: observe.Counters{Requests: known(4)}}, Proven, "none"},
		"a line is missing": {
			observation{ours: 5, after: observe.Counters{Requests: known(6)}},
			Inconclusive, "it counted 6 requests and logged 5",
		},
		"a line of others missing": {
			observation{others: map[string]int{"curl": 1}, after: observe.Counters{Requests: known(2)}},
			Inconclusive, "counted 2 requests and logged 1",
		},
	} {
		tc.l.after.Pods = pods
		expectCheck(t, name, judgeAround(Measurement{Sent: 10}, &tc.l), tc.verdict, tc.text)
	}
	expectCheck(t, "no waypoint", judgeAround(Measurement{Sent: 10}, &observation{}), Proven, "there is no waypoint")
}

// The policy must have denied each request, and its counter must agree with the whole of the log.
func TestJudgeDenied(t *testing.T) {
	denied := observe.Crossing{Status: 403, Details: "rbac_access_denied_matched_policy[none]"}
	for name, tc := range map[string]struct {
		mine    []observe.Crossing
		all     int
		counted observe.Counter
		others  map[string]int
		verdict Verdict
		text    string
	}{
		"all": {crossings(10, denied), 10, known(10), nil, Proven, "denied 10 of the 10 requests"},
		"and of other batches": {
			crossings(10, denied), 30, known(30), nil,
			Proven, "logged 30 as denied and counted 30",
		},
		"no counter": {crossings(10, denied), 10, observe.Counter{}, nil, Refuted, "no counter of denied"},
		"one by something else": {
			append(crossings(9, denied), observe.Crossing{Status: 403, Details: "ext_authz_denied"}), 9, known(9), nil,
			Refuted, "denied 9 of the 10",
		},
		"not counted": {
			crossings(10, denied), 10, known(0), nil,
			Refuted, "counted 0: something else denied them",
		},
		"one not counted": {crossings(10, denied), 10, known(9), nil, Refuted, "something else"},
		"more counted": {
			crossings(10, denied), 10, known(11), nil,
			Inconclusive, "lines of its log are missing",
		},
		"others denied": {
			crossings(10, denied), 12, known(12),
			map[string]int{"curl": 2},
			Proven, "counted 12",
		},
		"others not counted": {
			crossings(10, denied), 12, known(11),
			map[string]int{"curl": 2},
			Inconclusive, "denied during the measurement (curl)",
		},
		"a log without details": {
			crossings(10, observe.Crossing{Status: 403}), 10, known(10), nil,
			Proven, "denied 10",
		},
		"a 200 without details": {
			crossings(10, observe.Crossing{Status: 200}), 0, known(0), nil,
			Refuted, "denied 0 of",
		},
	} {
		m := &Measurement{Sent: 10}
		l := &observation{
			mine: tc.mine, denied: tc.all, others: tc.others,
			before: observe.Counters{Denied: known(5)}, after: observe.Counters{Denied: tc.counted},
		}
		l.after.Denied.Value += 5
		expectCheck(t, name, judgeDenied(m, l), tc.verdict, tc.text)
		if m.Denied == nil {
			t.Errorf("%s: the measurement does not keep how many were denied", name)
		}
	}
}

// Which checks a route has.
func TestJudgeRoute(t *testing.T) {
	one := observe.Counters{Pods: []string{"waypoint/u/0"}, Requests: known(100), Denied: known(5)}
	after := observe.Counters{Pods: one.Pods, Requests: known(110), Denied: known(15)}
	seen := crossings(10, observe.Crossing{Principal: appaIdentity, Status: 403})
	through, around := Expect{Route: Through}, Expect{Route: Around}
	counted := Expect{Route: Through, Counted: true}
	for name, tc := range map[string]struct {
		expect Expect
		l      *observation
		want   []Verdict
		text   string
	}{
		"through": {
			through, &observation{before: one, after: after, mine: seen, ours: 10},
			[]Verdict{Proven, Proven},
			"holds 10 of the 10",
		},
		"through, nothing logged": {
			through, &observation{before: one, after: one},
			[]Verdict{Refuted},
			"went around it",
		},
		"through, cannot observe": {
			through, &observation{err: errors.New("forbidden")},
			[]Verdict{Inconclusive},
			"cannot be observed: forbidden",
		},
		"through, another pod": {
			through, &observation{before: one, after: observe.Counters{Pods: []string{"waypoint/u/1"}}},
			[]Verdict{Inconclusive},
			"not the same before and after",
		},
		"through, no pod": {through, &observation{mine: seen}, []Verdict{Refuted}, "no pod that is ready"},
		"denied": {
			counted, &observation{before: one, after: after, mine: seen, ours: 10, denied: 10},
			[]Verdict{Proven, Proven, Proven},
			"",
		},
		"denied, without a counter": {
			counted, &observation{
				before: one, after: observe.Counters{Pods: one.Pods, Requests: known(110)}, mine: seen,
				ours: 10, denied: 10,
			},
			[]Verdict{Proven, Proven, Refuted},
			"",
		},
		"around": {
			around, &observation{before: one, after: one},
			[]Verdict{Proven},
			"none of the 10 requests is in the waypoint's log",
		},
		"around, but through": {
			around, &observation{before: one, after: after, mine: seen[:1]},
			[]Verdict{Refuted},
			"1 of 10 requests went through",
		},
		"around, no pod": {around, &observation{}, []Verdict{Proven}, "there is no waypoint"},
	} {
		m := &Measurement{Sent: 10}
		shot := Shot{Caller: Appa, Expect: tc.expect}
		checks := Env{TrustDomain: "cluster.local", Namespace: "default"}.judgeRoute(shot, m, tc.l)
		var verdicts []Verdict
		for _, c := range checks {
			verdicts = append(verdicts, c.Verdict)
		}
		if !slices.Equal(verdicts, tc.want) || !strings.Contains(checks[0].Text, tc.text) {
			t.Errorf("%s: %+v; want %v and %q", name, checks, tc.want, tc.text)
		}
		if tc.l.err == nil && slices.Equal(tc.l.before.Pods, tc.l.after.Pods) &&
			(m.Crossed == nil || *m.Crossed != len(tc.l.mine)) {
			t.Errorf("%s: the measurement does not keep how many crossed: %+v", name, m)
		}
	}
}

func TestJudgeIdentity(t *testing.T) {
	as := func(principal string, n int) []observe.Crossing {
		return crossings(n, observe.Crossing{Principal: principal})
	}
	for name, tc := range map[string]struct {
		mine    []observe.Crossing
		verdict Verdict
		text    string
	}{
		"all":      {as(appaIdentity, 3), Proven, "every request as " + appaIdentity},
		"not told": {as("", 3), Inconclusive, "accessLogFormat"},
		"another": {as("spiffe://x", 3), Refuted, "expected " + appaIdentity +
			", the waypoint identified spiffe://x"},
		"one another": {append(as(appaIdentity, 2), as("spiffe://x", 1)...), Refuted, "identified " + appaIdentity +
			", spiffe://x"},
		"one not": {append(as(appaIdentity, 2), as("", 1)...), Refuted, "identified"},
	} {
		e := Env{TrustDomain: "cluster.local", Namespace: "default"}
		expectCheck(t, name, e.judgeIdentity(Appa, &Measurement{}, &observation{mine: tc.mine}), tc.verdict, tc.text)
	}
}

// With the fault of half of the requests by 2 s, an answer counts as slow from 1.5 s on, above what appb takes by
// itself.
func TestJudgePrompt(t *testing.T) {
	prompt := slices.Repeat([]int{5}, 19)
	for name, tc := range map[string]struct {
		ms      []int
		own     ownTimes
		marked  int // of its lines, by the waypoint as delayed; none has a line where it is negative
		verdict Verdict
		text    string
	}{
		"all prompt": {append(prompt, 1499), ownTimes{}, -1, Proven, "the slowest of 20 answers took 1.499s"},
		"one slow of twenty": {
			append(prompt, 1500),
			ownTimes{},
			-1,
			Inconclusive,
			"1 of 20 answers took 1.5s or longer; expected: none, but far fewer",
		},
		"half slow": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{},
			-1,
			Refuted,
			"10 of 20 answers took 1.5s or longer; expected: none",
		},
		"half slow, none delayed": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{},
			0,
			Inconclusive,
			"10 of 20 answers took 1.5s or longer; expected: none, but the waypoint delayed none, by its log: " + busy,
		},
		"half slow, some delayed": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{},
			1, Refuted,
			"10 of 20",
		},
		"four of twenty": {
			append(slices.Repeat([]int{5}, 16), 2000, 2000, 2000, 2000),
			ownTimes{},
			-1,
			Refuted,
			"4 of 20",
		},
		"appb is as slow": {
			append(prompt, 1500),
			ownTimes{known: true, slowest: 1500 * time.Millisecond},
			-1,
			Inconclusive, "but appb alone took up to 1.5s",
		},
		"appb is nearly as slow": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{known: true, slowest: 1499 * time.Millisecond},
			-1,
			Refuted, "10 of 20",
		},
		"appb takes a second": {
			append(prompt, 2499),
			ownTimes{known: true, fastest: time.Second, slowest: time.Second},
			-1,
			Proven, "2.499s",
		},
		"and a delay on top of it": {
			slices.Repeat([]int{1000, 2500}, 10),
			ownTimes{known: true, fastest: time.Second, slowest: time.Second},
			-1,
			Refuted, "took 2.5s or longer",
		},
	} {
		e := Env{Error: 0.001}
		m := Measurement{Sent: len(tc.ms), Replies: replies(tc.ms...)}
		seen := &observation{}
		if tc.own.known {
			seen.mine = []observe.Crossing{{Own: tc.own.fastest, OwnKnown: true}, {Own: tc.own.slowest, OwnKnown: true}}
		}
		if tc.marked >= 0 {
			seen.mine = append(crossings(tc.marked, observe.Crossing{Flags: "DI"}),
				crossings(m.Sent-tc.marked, observe.Crossing{})...)
		}
		expectCheck(t, name, e.judgePrompt(m, seen), tc.verdict, tc.text)
	}
}

// answersOf are the latencies of requests, of which so many took each of the given times, evenly mixed.
func answersOf(counts map[int]int) (all []int) {
	sent := map[int]int{}
	for range sum(counts) {
		next := -1
		for _, ms := range slices.Sorted(maps.Keys(counts)) {
			if next < 0 || (sent[ms]+1)*counts[next] < (sent[next]+1)*counts[ms] {
				next = ms
			}
		}
		sent[next]++
		all = append(all, next)
	}
	return all
}

func TestJudgeShare(t *testing.T) {
	const share, delay = 0, 1
	ms := time.Millisecond
	for name, tc := range map[string]struct {
		answers  map[int]int
		baseline []time.Duration
		own      []time.Duration // of appb, as the waypoint logged them
		marked   int             // by the waypoint's log as delayed
		want     []Verdict
		which    int
		text     string
	}{
		"half": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Proven},
			share,
			"300 of 600 requests (50.0 %) were delayed; the true share lies between 41.0 % and 59.0 %",
		},
		"half, counted": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil, 300,
			[]Verdict{Proven, Proven},
			share, "; the waypoint's log marks 300 as delayed",
		},
		"of each, how long it took": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Proven},
			delay,
			"took 2.005s or longer, half of them over 2.005s; the others 5ms; set: 2s",
		},
		"a third": {
			map[int]int{5: 400, 2005: 200},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Refuted, Proven},
			share, "(33.3 %)",
		},
		"none": {
			map[int]int{5: 600},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Refuted},
			share, "0 of 600",
		},
		"too few to know": {
			map[int]int{5: 10, 2005: 10},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Inconclusive, Proven},
			share, "more requests would be needed to be sure",
		},
		"undelayed ones are slow": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{1600 * ms},
			nil,
			0,
			[]Verdict{Inconclusive},
			share, "too near to the delay",
		},
		"longer than one delay": {
			map[int]int{5: 300, 4100: 300},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Refuted},
			delay, "longer than one delay explains",
		},
		"as long as one can be": {
			map[int]int{5: 300, 4002: 300},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Proven},
			delay, "took 4.002s",
		},
		"one in twenty is between": {
			map[int]int{5: 285, 2005: 285, 1500: 30},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Proven},
			delay, "took 2.005s",
		},
		"more are between": {
			map[int]int{5: 285, 2005: 284, 1500: 31},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Proven, Refuted},
			delay,
			"31 answers took between 1.003s and 2s: too slow for no delay, too fast for this one",
		},
		"those between decide": {
			map[int]int{5: 300, 2005: 200, 1500: 100},
			[]time.Duration{5 * ms},
			nil,
			0,
			[]Verdict{Inconclusive, Refuted},
			share, "200 of 600",
		},
		"appb takes a second": {
			map[int]int{1005: 300, 3005: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{1000 * ms, 1000 * ms},
			0,
			[]Verdict{Proven, Proven},
			delay,
			"took 3.005s or longer, half of them over 3.005s; the others 1.005s; set: 2s, " +
				"above the 1s that appb takes",
		},
		"appb takes a second, early": {
			map[int]int{1005: 300, 2505: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{1000 * ms, 1000 * ms},
			0,
			[]Verdict{Inconclusive, Refuted},
			delay,
			"300 answers took between 2.003s and 3s",
		},
		"appb differs": {
			map[int]int{305: 300, 2305: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{200 * ms, 300 * ms},
			0,
			[]Verdict{Proven, Proven},
			delay,
			"above the 100ms that appb takes",
		},
		"appb differs too much": {
			map[int]int{305: 300, 2305: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{200 * ms, 1800 * ms},
			0,
			[]Verdict{Inconclusive},
			share,
			"too near to the delay",
		},
	} {
		var mine []observe.Crossing
		for _, own := range tc.own {
			mine = append(mine, observe.Crossing{Own: own, OwnKnown: true})
		}
		mine = append(mine, crossings(tc.marked, observe.Crossing{Flags: "DI"})...)
		fault := params.DefaultFault()
		e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
		m := &Measurement{Replies: replies(answersOf(tc.answers)...)}
		checks := e.judgeShare(m, tc.baseline, &observation{mine: mine})
		var verdicts []Verdict
		for _, c := range checks {
			verdicts = append(verdicts, c.Verdict)
		}
		if !slices.Equal(verdicts, tc.want) || !strings.Contains(checks[tc.which].Text, tc.text) {
			t.Errorf("%s: %+v; want %v and %q", name, checks, tc.want, tc.text)
		}
	}
}

// The text gives the interval in percent, and speaks of appb's own time only where it has one.
func TestJudgeShareText(t *testing.T) {
	fault := params.DefaultFault()
	e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
	m := &Measurement{Replies: replies(answersOf(map[int]int{5: 400, 2005: 200})...)}
	checks := e.judgeShare(m, []time.Duration{5 * time.Millisecond}, &observation{})
	low, high := stats.Sequence(200, 600, 0.001)
	want := fmt.Sprintf("200 of 600 requests (33.3 %%) were delayed; the true share lies between %.1f %% and %.1f %% "+
		"(wrong with probability 0.001), set: 50 %%", 100*low, 100*high)
	if !strings.HasPrefix(checks[0].Text, want) {
		t.Errorf("%s; want %s", checks[0].Text, want)
	}
	if strings.Contains(checks[0].Text, "marks") || strings.Contains(checks[1].Text, "appb takes") {
		t.Error(checks)
	}
	all := &Measurement{Replies: replies(answersOf(map[int]int{3005: 600})...)}
	e.judgeShare(all, []time.Duration{5 * time.Millisecond},
		&observation{mine: crossings(2, observe.Crossing{Own: time.Second, OwnKnown: true})})
	if all.Share.Fast != 0 || all.Share.Least != 3005*time.Millisecond {
		t.Errorf("without an undelayed answer: %+v", all.Share)
	}
}

// Requests are judged in the order in which they were sent. What is sure stays so, whatever comes later.
func TestJudgeShareIsSureEarly(t *testing.T) {
	fault := params.DefaultFault()
	e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
	baseline := []time.Duration{5 * time.Millisecond}
	half, none := answersOf(map[int]int{5: 200, 2005: 200}), answersOf(map[int]int{5: 400})
	judge := func(ms []int, at func(i int) time.Duration) (Check, *ShareFound) {
		m := &Measurement{Replies: replies(ms...)}
		for i := range m.Replies {
			m.Replies[i].At = time.Unix(0, 0).Add(at(i))
		}
		return e.judgeShare(m, baseline, &observation{})[0], m.Share
	}
	forward := func(i int) time.Duration { return time.Duration(i) }
	backward := func(i int) time.Duration { return -time.Duration(i) }
	check, found := judge(half, forward)
	expectCheck(t, "half", check, Proven, fmt.Sprintf("set: 50 %%; sure after %d", found.Used))
	if found.Used >= 400 || found.Of != 400 {
		t.Errorf("%+v", found)
	}
	check, late := judge(append(slices.Clone(half), none...), forward)
	expectCheck(t, "half, then none", check, Proven, "")
	if late.Used != found.Used || late.Of != 800 || late.Delayed != 200 {
		t.Errorf("%+v", late)
	}
	check, early := judge(append(slices.Clone(half), none...), backward)
	expectCheck(t, "none, then half", check, Refuted, fmt.Sprintf("sure after %d", early.Used))
	if early.Used > 20 {
		t.Errorf("%+v", early)
	}
	check, found = judge(half[:40], forward)
	expectCheck(t, "too few", check, Inconclusive, "more requests would be needed to be sure")
	if found.Used != 40 || strings.Contains(check.Text, "sure after") {
		t.Errorf("%+v, %s", found, check.Text)
	}
	for name, tc := range map[string]struct {
		ms       []int
		baseline []time.Duration
		want     bool
	}{
		"half":                      {half, baseline, true},
		"none":                      {none, baseline, true},
		"too few":                   {half[:40], baseline, false},
		"the modes cannot be told":  {half[:40], []time.Duration{1600 * time.Millisecond}, true},
		"no baseline to compare to": {half[:40], nil, true},
	} {
		if got := e.sure(Measurement{Replies: replies(tc.ms...)}, tc.baseline, &observation{}); got != tc.want {
			t.Errorf("%s: sure %v", name, got)
		}
	}
}

// Answers that belong to neither mode must not change the verdict.
func TestVerdictOnAShare(t *testing.T) {
	share := stats.Share{Want: 0.5, Within: 0.15, Error: 0.001}
	for name, tc := range map[string]struct {
		fast, between, delayed int
		want                   Verdict
	}{
		"fits":                           {300, 0, 300, Proven},
		"differs":                        {500, 0, 100, Refuted},
		"too few":                        {5, 0, 5, Inconclusive},
		"fits either way":                {295, 10, 295, Proven},
		"differs either way":             {490, 10, 100, Refuted},
		"fits or differs":                {100, 200, 300, Inconclusive},
		"differs unless they count also": {300, 200, 100, Inconclusive},
	} {
		s := sorted{}
		for _, ms := range answersOf(map[int]int{
			int(stats.Fast): tc.fast, int(stats.Between): tc.between, int(stats.Delayed): tc.delayed,
		}) {
			s.modes = append(s.modes, stats.Mode(ms))
		}
		got, used := s.verdict(share)
		if got != tc.want || used < 1 || used > len(s.modes) || got == Inconclusive && used != len(s.modes) {
			t.Errorf("%s: %s after %d, want %s", name, got, used, tc.want)
		}
	}
}

// On a busy machine answers are late that nothing delays. The waypoint's log tells which it delayed, and a verdict
// needs both.
func TestJudgeShareOnABusyMachine(t *testing.T) {
	const share, delay = 0, 1
	fault := params.DefaultFault()
	e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
	for name, tc := range map[string]struct {
		answers map[int]int
		marked  int // of all
		which   int
		verdict Verdict
		text    string
	}{
		"late without a delay": {
			map[int]int{5: 180, 2005: 420},
			300, share,
			Inconclusive, "but the waypoint delayed 300, by its log: " + busy,
		},
		"late, and delayed":           {map[int]int{5: 180, 2005: 420}, 420, share, Refuted, "marks 420 as delayed"},
		"half, and not delayed":       {map[int]int{5: 300, 2005: 300}, 120, share, Inconclusive, busy},
		"half, and the log is unsure": {map[int]int{5: 300, 2005: 300}, 250, share, Proven, "marks 250 as delayed"},
		"a log without marks":         {map[int]int{5: 180, 2005: 420}, 0, share, Refuted, "sure after"},
		"between without a delay": {
			map[int]int{5: 250, 1500: 50, 2005: 300},
			300, delay,
			Inconclusive, "50 answers took between 1.003s and 2s, although the waypoint delayed none of them: " + busy,
		},
		"between, and delayed": {
			map[int]int{5: 300, 1500: 50, 2005: 250},
			300, delay,
			Refuted, "too fast for this one",
		},
	} {
		all := sum(tc.answers)
		var mine []observe.Crossing
		for _, marked := range answersOf(map[int]int{0: all - tc.marked, 1: tc.marked}) {
			mine = append(mine, observe.Crossing{Flags: []string{"", "UT,DI"}[marked]})
		}
		m := &Measurement{Replies: replies(answersOf(tc.answers)...)}
		checks := e.judgeShare(m, []time.Duration{5 * time.Millisecond}, &observation{mine: mine})
		expectCheck(t, name, checks[tc.which], tc.verdict, tc.text)
	}
	// Where the log lacks requests, it cannot tell which of the late answers were delayed.
	m := &Measurement{Replies: replies(answersOf(map[int]int{5: 140, 1500: 40, 2005: 420})...)}
	seen := &observation{mine: crossings(10, observe.Crossing{Flags: "DI"})}
	expectCheck(t, "a log without most requests", e.judgeShare(m, []time.Duration{5 * time.Millisecond}, seen)[share],
		Inconclusive, "holds only 10 of them")
}

// What may be measured again.
func TestSpoilt(t *testing.T) {
	fine := Check{"status", Proven, ""}
	for name, tc := range map[string]struct {
		checks []Check
		want   bool
	}{
		"nothing":                       {nil, false},
		"proven":                        {[]Check{fine}, false},
		"inconclusive for good":         {[]Check{fine, {"share delayed", Inconclusive, "more requests"}}, false},
		"other traffic":                 {[]Check{fine, {throughCheck, Inconclusive, ""}}, true},
		"other traffic, in the control": {[]Check{{"control: " + throughCheck, Inconclusive, ""}, fine}, true},
		"a busy machine":                {[]Check{{"share delayed", Inconclusive, "late: " + busy}, fine}, true},
		"refuted all the same":          {[]Check{{throughCheck, Inconclusive, ""}, {"status", Refuted, ""}}, false},
		"restarted":                     {[]Check{fine, {samePodsCheck, Inconclusive, ""}}, true},
		"restarted, and so refuted":     {[]Check{{"status", Refuted, ""}, {samePodsCheck, Inconclusive, ""}}, true},
	} {
		why, got := spoilt(tc.checks)
		if got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
		if got && why.Verdict != Inconclusive {
			t.Errorf("%s: the reason is %+v", name, why)
		}
	}
}
