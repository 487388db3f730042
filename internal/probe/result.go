package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/probe/traffic"
)

// SchemaVersion is the version of the JSON that a Report is written as. It rises when a field changes its meaning or
// goes; new fields may come at any time.
const SchemaVersion = 3

// Evidence is a kind of evidence.
type Evidence string

// The kinds of evidence: requests that were sent, or the configuration that istiod sends to the proxies.
const (
	OnTraffic       Evidence = "traffic"
	OnConfiguration Evidence = "configuration"
)

// Verdict is what the evidence says about a claim.
type Verdict string

// The verdicts. Inconclusive is everything that is neither: too few samples, other traffic, a pod that was restarted
// during the measurement, a result that was lost.
const (
	Proven       Verdict = "proven"
	Refuted      Verdict = "refuted"
	Inconclusive Verdict = "inconclusive"
)

// Report is the outcome of a run. Its JSON form is described by report/schema.json.
type Report struct {
	Schema int `json:"schema"`
	// Lab is the lab's name, Namespace where its applications live.
	Lab       string        `json:"lab"`
	Namespace string        `json:"namespace"`
	Started   time.Time     `json:"started"`
	Took      time.Duration `json:"tookNanoseconds"`
	Lessons   Lessons       `json:"lessons"`
	// Evidence is what the verdicts rest on. LeftOut are the claims that this kind of evidence cannot decide.
	Evidence Evidence `json:"evidence"`
	LeftOut  []string `json:"leftOut,omitempty"`
	// Error is the probability of a wrong answer that each claim about a share was tested at.
	Error float64 `json:"errorProbability,omitempty"`
	// Substitutes names what ran in place of Istio's own images.
	Substitutes []Substitute `json:"substitutes,omitempty"`
	// Facts are the versions and settings that the reader should know, in order.
	Facts  []Fact   `json:"facts,omitempty"`
	Claims []Result `json:"claims"`
}

// Substitute is an image that stood in for another.
type Substitute struct {
	Image string `json:"image"`
	By    string `json:"by"`
}

// Fact is something worth knowing about the run.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Result is one claim and what became of it.
type Result struct {
	ID      string        `json:"id"`
	Lesson  string        `json:"lesson"`
	Title   string        `json:"title"`
	Learn   string        `json:"learn"`
	Verdict Verdict       `json:"verdict"`
	Took    time.Duration `json:"tookNanoseconds"`
	// Checks are the single findings that the verdict rests on.
	Checks []Check `json:"checks"`
	// Causes are likely reasons for a claim that is not proven, the likeliest first.
	Causes []string `json:"causes,omitempty"`
	// Measured are the batches behind the checks, controls first.
	Measured []Measurement `json:"measured,omitempty"`

	later []Later // what is still waited for; nil in a report
}

// Check is one finding.
type Check struct {
	// Name is short and stable; Text says what was expected and what was seen.
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
}

// Measurement is one batch of requests with everything that was measured about it.
type Measurement struct {
	Run    string `json:"run"`
	Who    Caller `json:"who"`
	Method string `json:"method"`
	Path   string `json:"path"`
	// Command is what a learner would type to send one of them.
	Command string `json:"command,omitempty"`
	Control bool   `json:"control"`
	// Sent is how many requests, Statuses how many answers of each status ("-1": no HTTP answer).
	Sent     int             `json:"sent"`
	Statuses map[string]int  `json:"statuses"`
	Replies  []traffic.Reply `json:"replies,omitempty"`
	// Errors are the caller's reasons for connections that failed.
	Errors []string `json:"errors,omitempty"`
	// Crossed is how many of them the waypoint's log holds, Denied how many of these its policy denied, Seen how many
	// it identified as which caller.
	Crossed *int           `json:"crossed,omitempty"`
	Denied  *int           `json:"denied,omitempty"`
	Seen    map[string]int `json:"seen,omitempty"`
	// Share is the statement about the delayed requests, where there is one.
	Share *ShareFound `json:"share,omitempty"`
	Body  string      `json:"body,omitempty"`
}

// ShareFound is a measured share of delayed requests.
type ShareFound struct {
	Delayed int `json:"delayed"`
	Of      int `json:"of"`
	// Used is how many of the requests, in the order in which they were sent, made the verdict sure; all where it is
	// not.
	Used int `json:"used"`
	// Low and High bound the true share, wrong with at most probability Error however many requests are sent; Want and
	// Delay are what was set.
	Low   float64       `json:"low"`
	High  float64       `json:"high"`
	Want  float64       `json:"want"`
	Delay time.Duration `json:"delayNanoseconds"`
	Error float64       `json:"errorProbability"`
	// Edge is the latency that separates the two modes, Fast and Slow their medians, Least the fastest delayed answer.
	Edge  time.Duration `json:"edgeNanoseconds"`
	Fast  time.Duration `json:"fastNanoseconds"`
	Slow  time.Duration `json:"slowNanoseconds"`
	Least time.Duration `json:"leastNanoseconds"`
	// Between is how many answers belong to neither mode.
	Between int `json:"between"`
}

// Count gives how many claims have the verdict.
func (r Report) Count(v Verdict) int {
	n := 0
	for _, c := range r.Claims {
		if c.Verdict == v {
			n++
		}
	}
	return n
}

// whyLimit is how many reasons Why gives.
const whyLimit = 5

// Why gives the likely causes of what is not proven, each once, and of a claim whose cause is not known what was seen;
// nil where every claim is proven. It gives the first few.
func (r Report) Why() error {
	var reasons []string
	add := func(reason string) {
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	for _, c := range r.Claims {
		switch i := slices.IndexFunc(c.Checks, func(k Check) bool { return k.Verdict == c.Verdict }); {
		case c.Verdict == Proven:
		case len(c.Causes) > 0:
			for _, cause := range c.Causes {
				add("likely " + cause)
			}
		case i >= 0:
			add(c.ID + ": " + c.Checks[i].Text)
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	if more := len(reasons) - whyLimit; more > 0 {
		reasons = append(reasons[:whyLimit], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(reasons, "; "))
}

// Proven tells whether every claim is proven, and there is at least one.
func (r Report) Proven() bool { return len(r.Claims) > 0 && r.Count(Proven) == len(r.Claims) }
