package probe

import (
	"errors"
	"fmt"
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

// The waypoint's log and its counter against what was sent.
func TestJudgeThrough(t *testing.T) {
	for name, tc := range map[string]struct {
		logged  int
		moved   observe.Counter
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
			10, known(10), nil, Proven,
			"holds 10 of the 10 requests, its own counter moved by 10",
		},
		"all, and others": {
			10, known(12),
			map[string]int{"curl": 2, "ab": 1},
			Inconclusive,
			"other traffic used the waypoint during the measurement (ab; curl)",
		},
		"all, fewer counted":               {10, known(9), nil, Inconclusive, "do not agree"},
		"one too many":                     {11, known(11), nil, Inconclusive, "sent twice"},
		"none":                             {0, known(0), nil, Refuted, "the requests went around it"},
		"none, no counter":                 {0, observe.Counter{}, nil, Refuted, "the requests went around it"},
		"some":                             {4, known(4), nil, Refuted, "the others went around it"},
		"some, no counter":                 {4, observe.Counter{}, nil, Refuted, "the others went around it"},
		"some logged, all counted":         {4, known(10), nil, Inconclusive, "other traffic"},
		"some logged, more than all":       {4, known(11), nil, Inconclusive, "other traffic"},
		"some logged, fewer counted":       {4, known(9), nil, Refuted, "the others went around it"},
		"none logged, as many counted":     {0, known(10), nil, Inconclusive, "other traffic"},
		"none logged, fewer counted":       {0, known(9), nil, Refuted, "the requests went around it"},
		"all but one logged, none counted": {9, known(0), nil, Refuted, "the others went around it"},
	} {
		l := &observation{mine: crossings(tc.logged, observe.Crossing{}), others: tc.others}
		expectCheck(t, name, judgeThrough(Measurement{Sent: 10}, l, tc.moved), tc.verdict, tc.text)
	}
}

func TestJudgeRoute(t *testing.T) {
	one := observe.Counters{Pods: []string{"waypoint/u/0"}, Requests: known(100), Denied: known(5)}
	after := func(requests, denied observe.Counter) observe.Counters {
		return observe.Counters{Pods: one.Pods, Requests: requests, Denied: denied}
	}
	seen := crossings(10, observe.Crossing{Principal: appaIdentity})
	through, around := Expect{Route: Through}, Expect{Route: Around}
	counted := Expect{Route: Through, Counted: true}
	for name, tc := range map[string]struct {
		expect Expect
		l      *observation
		want   []Verdict
		text   string
	}{
		"through": {
			through,
			&observation{before: one, after: after(known(110), known(5)), mine: seen},
			[]Verdict{Proven, Proven},
			"holds 10 of the 10",
		},
		"through, nothing logged": {
			through, &observation{before: one, after: after(known(100), known(5))},
			[]Verdict{Refuted},
			"went around it",
		},
		"through, cannot observe": {
			through, &observation{err: errors.New("forbidden")},
			[]Verdict{Inconclusive},
			"cannot be observed: forbidden",
		},
		"through, another pod": {
			through,
			&observation{before: one, after: observe.Counters{Pods: []string{"waypoint/u/1"}}},
			[]Verdict{Inconclusive},
			"not the same before and after",
		},
		"through, no pod": {through, &observation{mine: seen}, []Verdict{Refuted}, "no pod that is ready"},
		"denied, all counted": {
			counted,
			&observation{before: one, after: after(known(110), known(15)), mine: seen},
			[]Verdict{Proven, Proven, Proven},
			"",
		},
		"denied, some counted": {
			counted,
			&observation{before: one, after: after(known(110), known(14)), mine: seen},
			[]Verdict{Proven, Proven, Refuted},
			"",
		},
		"denied, more counted": {
			counted,
			&observation{before: one, after: after(known(110), known(16)), mine: seen},
			[]Verdict{Proven, Proven, Inconclusive},
			"",
		},
		"denied, without a counter": {
			counted,
			&observation{before: one, after: after(known(110), observe.Counter{}), mine: seen},
			[]Verdict{Proven, Proven, Refuted},
			"",
		},
		"around": {
			around, &observation{before: one, after: after(known(100), known(5))},
			[]Verdict{Proven},
			"none of the 10 requests is in the waypoint's log",
		},
		"around, but through": {
			around, &observation{before: one, after: after(known(101), known(5)), mine: seen[:1]},
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
	}
}

// What the measurement keeps of the counters: how far each has moved, and nothing where it is not known.
func TestJudgeRouteKeepsTheCounts(t *testing.T) {
	pods := []string{"waypoint/u/0"}
	l := &observation{
		before: observe.Counters{Pods: pods, Requests: known(100), Denied: known(5)},
		after:  observe.Counters{Pods: pods, Requests: known(110), Denied: known(12)},
		mine:   crossings(3, observe.Crossing{}),
	}
	m := &Measurement{Sent: 10}
	Env{}.judgeRoute(Shot{Expect: Expect{Route: Through, Counted: true}}, m, l)
	if m.Crossed == nil || *m.Crossed != 3 || m.Counted == nil || *m.Counted != 10 || m.Denied == nil ||
		*m.Denied != 7 {
		t.Errorf("%+v", m)
	}
	l.after.Requests, l.after.Denied = observe.Counter{}, observe.Counter{}
	m = &Measurement{Sent: 10}
	Env{}.judgeRoute(Shot{Expect: Expect{Route: Through, Counted: true}}, m, l)
	if m.Counted != nil || m.Denied != nil {
		t.Errorf("counters that are not known are kept: %+v", m)
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
		verdict Verdict
		text    string
	}{
		"all prompt": {append(prompt, 1499), ownTimes{}, Proven, "the slowest of 20 answers took 1.499s"},
		"one slow of twenty": {
			append(prompt, 1500),
			ownTimes{},
			Inconclusive,
			"1 of 20 answers took 1.5s or longer; expected: none, but far fewer",
		},
		"half slow": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{},
			Refuted,
			"10 of 20 answers took 1.5s or longer; expected: none",
		},
		"four of twenty": {
			append(slices.Repeat([]int{5}, 16), 2000, 2000, 2000, 2000),
			ownTimes{},
			Refuted,
			"4 of 20",
		},
		"appb is as slow": {
			append(prompt, 1500),
			ownTimes{known: true, slowest: 1500 * time.Millisecond},
			Inconclusive, "but appb alone took up to 1.5s",
		},
		"appb is nearly as slow": {
			slices.Repeat([]int{5, 2000}, 10),
			ownTimes{known: true, slowest: 1499 * time.Millisecond},
			Refuted, "10 of 20",
		},
		"appb takes a second": {
			append(prompt, 2499),
			ownTimes{known: true, fastest: time.Second, slowest: time.Second},
			Proven, "2.499s",
		},
		"and a delay on top of it": {
			slices.Repeat([]int{1000, 2500}, 10),
			ownTimes{known: true, fastest: time.Second, slowest: time.Second},
			Refuted, "took 2.5s or longer",
		},
	} {
		e := Env{Error: 0.001}
		m := Measurement{Sent: len(tc.ms), Replies: replies(tc.ms...)}
		expectCheck(t, name, e.judgePrompt(m, tc.own), tc.verdict, tc.text)
	}
}

// answersOf are the latencies of n requests, of which so many took each of the given times.
func answersOf(counts map[int]int) (all []int) {
	for ms, n := range counts {
		all = append(all, slices.Repeat([]int{ms}, n)...)
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
		injected observe.Counter
		want     []Verdict
		which    int
		text     string
	}{
		"half": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Proven},
			share,
			"300 of 600 requests (50.0 %) were delayed; the true share lies between 43.",
		},
		"half, counted": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil, known(300),
			[]Verdict{Proven, Proven},
			share, "; Envoy counts 300 delays",
		},
		"of each, how long it took": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Proven},
			delay,
			"took 2.005s or longer, half of them over 2.005s; the others 5ms; set: 2s",
		},
		"a third": {
			map[int]int{5: 400, 2005: 200},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Refuted, Proven},
			share, "(33.3 %)",
		},
		"none": {
			map[int]int{5: 600},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Refuted},
			share, "0 of 600",
		},
		"too few to know": {
			map[int]int{5: 10, 2005: 10},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Inconclusive, Proven},
			share, "more requests would be needed to be sure",
		},
		"undelayed ones are slow": {
			map[int]int{5: 300, 2005: 300},
			[]time.Duration{1600 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Inconclusive},
			share, "too near to the delay",
		},
		"longer than one delay": {
			map[int]int{5: 300, 4100: 300},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Refuted},
			delay, "longer than one delay explains",
		},
		"as long as one can be": {
			map[int]int{5: 300, 4002: 300},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Proven},
			delay, "took 4.002s",
		},
		"one in twenty is between": {
			map[int]int{5: 285, 2005: 285, 1500: 30},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Proven},
			delay, "took 2.005s",
		},
		"more are between": {
			map[int]int{5: 285, 2005: 284, 1500: 31},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Proven, Refuted},
			delay,
			"31 answers took between 1.003s and 2s: too slow for no delay, too fast for this one",
		},
		"those between decide": {
			map[int]int{5: 300, 2005: 200, 1500: 100},
			[]time.Duration{5 * ms},
			nil,
			observe.Counter{},
			[]Verdict{Inconclusive, Refuted},
			share, "200 of 600",
		},
		"appb takes a second": {
			map[int]int{1005: 300, 3005: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{1000 * ms, 1000 * ms},
			observe.Counter{},
			[]Verdict{Proven, Proven},
			delay,
			"took 3.005s or longer, half of them over 3.005s; the others 1.005s; set: 2s, " +
				"above the 1s that appb takes",
		},
		"appb takes a second, early": {
			map[int]int{1005: 300, 2505: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{1000 * ms, 1000 * ms},
			observe.Counter{},
			[]Verdict{Inconclusive, Refuted},
			delay,
			"300 answers took between 2.003s and 3s",
		},
		"appb differs": {
			map[int]int{305: 300, 2305: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{200 * ms, 300 * ms},
			observe.Counter{},
			[]Verdict{Proven, Proven},
			delay,
			"above the 100ms that appb takes",
		},
		"appb differs too much": {
			map[int]int{305: 300, 2305: 300},
			[]time.Duration{5 * ms},
			[]time.Duration{200 * ms, 1800 * ms},
			observe.Counter{},
			[]Verdict{Inconclusive},
			share,
			"too near to the delay",
		},
	} {
		var mine []observe.Crossing
		for _, own := range tc.own {
			mine = append(mine, observe.Crossing{Own: own, OwnKnown: true})
		}
		fault := params.DefaultFault()
		e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
		m := &Measurement{Replies: replies(answersOf(tc.answers)...)}
		checks := e.judgeShare(m, tc.baseline, &observation{mine: mine, after: observe.Counters{Delayed: tc.injected}})
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
	low, high := stats.Interval(200, 600, 0.001)
	want := fmt.Sprintf("200 of 600 requests (33.3 %%) were delayed; the true share lies between %.1f %% and %.1f %% "+
		"(wrong with probability 0.001), set: 50 %%", 100*low, 100*high)
	if !strings.HasPrefix(checks[0].Text, want) {
		t.Errorf("%s; want %s", checks[0].Text, want)
	}
	if strings.Contains(checks[1].Text, "appb takes") {
		t.Error(checks[1].Text)
	}
	all := &Measurement{Replies: replies(answersOf(map[int]int{2005: 600})...)}
	e.judgeShare(all, []time.Duration{5 * time.Millisecond}, &observation{})
	if all.Share.Fast != 0 || all.Share.Least != 2005*time.Millisecond {
		t.Errorf("without an undelayed answer: %+v", all.Share)
	}
}

// Where enough requests were sent, no more are asked for; with one fewer they are.
func TestJudgeShareAsksForMore(t *testing.T) {
	fault := params.DefaultFault()
	e := Env{Error: 0.001, Lessons: Lessons{{Name: "fault", On: true, Parameters: fault}}}
	needed, err := e.share().Samples()
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{needed - 1: true, needed: false, needed + 1: false} {
		m := &Measurement{Replies: replies(answersOf(map[int]int{5: n / 2, 2005: n - n/2})...)}
		checks := e.judgeShare(m, []time.Duration{5 * time.Millisecond}, &observation{})
		if got := strings.Contains(checks[0].Text, "more requests would be needed"); got != want {
			t.Errorf("%d requests, %d needed: asks for more %v", n, needed, got)
		}
	}
}

// Answers that belong to neither mode must not change the verdict.
func TestJudgeShareVerdict(t *testing.T) {
	share := stats.Share{Want: 0.5, Within: 0.15, Error: 0.001}
	for name, tc := range map[string]struct {
		found ShareFound
		want  Verdict
	}{
		"fits":                           {ShareFound{Delayed: 300, Of: 600}, Proven},
		"differs":                        {ShareFound{Delayed: 100, Of: 600}, Refuted},
		"too few":                        {ShareFound{Delayed: 5, Of: 10}, Inconclusive},
		"fits either way":                {ShareFound{Delayed: 295, Between: 10, Of: 600}, Proven},
		"differs either way":             {ShareFound{Delayed: 100, Between: 10, Of: 600}, Refuted},
		"fits or differs":                {ShareFound{Delayed: 300, Between: 200, Of: 600}, Inconclusive},
		"differs unless they count also": {ShareFound{Delayed: 100, Between: 200, Of: 600}, Inconclusive},
	} {
		if got := (Env{}).shareVerdict(share, &tc.found); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}
