package stats_test

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/probe/stats"
)

// exact is the distribution of a binomial count with n trials, in arithmetic of 400 bits: atMost[k] is P(X <= k) and
// atLeast[k] is P(X >= k).
type exact struct{ atMost, atLeast []*big.Float }

func number(x float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(x) }

func binomial(n int, p float64) exact {
	hit := number(p)
	miss := number(0).Sub(number(1), hit)
	terms := make([]*big.Float, n+1)
	power := number(1)
	for k := range terms {
		terms[k] = number(0).SetInt(new(big.Int).Binomial(int64(n), int64(k)))
		terms[k].Mul(terms[k], power)
		power = number(0).Mul(power, hit)
	}
	power = number(1)
	for k := n; k >= 0; k-- {
		terms[k].Mul(terms[k], power)
		power = number(0).Mul(power, miss)
	}
	e := exact{make([]*big.Float, n+1), make([]*big.Float, n+1)}
	low, high := number(0), number(0)
	for k := range terms {
		low = number(0).Add(low, terms[k])
		high = number(0).Add(high, terms[n-k])
		e.atMost[k], e.atLeast[n-k] = low, high
	}
	return e
}

// near reports whether got differs from want by at most a billionth of want: also a tiny probability must be right.
func near(got float64, want *big.Float) bool {
	difference := number(0).Sub(number(got), want)
	return difference.Abs(difference).Cmp(number(0).Mul(want, number(1e-9))) <= 0
}

func TestTailsAreExact(t *testing.T) {
	for _, n := range []int{1, 2, 7, 40, 100} {
		for _, p := range []float64{0, 0.01, 0.3, 0.5, 0.75, 0.99, 1} {
			e := binomial(n, p)
			for k := range n + 1 {
				if got := stats.AtMost(k, n, p); !near(got, e.atMost[k]) {
					t.Errorf("AtMost(%d, %d, %g) = %g, want %.12g", k, n, p, got, e.atMost[k])
				}
				if got := stats.AtLeast(k, n, p); !near(got, e.atLeast[k]) {
					t.Errorf("AtLeast(%d, %d, %g) = %g, want %.12g", k, n, p, got, e.atLeast[k])
				}
			}
			for _, outside := range []struct{ got, want float64 }{
				{stats.AtMost(-1, n, p), 0},
				{stats.AtMost(n+1, n, p), 1},
				{stats.AtLeast(-1, n, p), 1},
				{stats.AtLeast(n+1, n, p), 0},
			} {
				if !near(outside.got, number(outside.want)) {
					t.Errorf("n=%d, p=%g, a count outside 0..n: %g, want %g", n, p, outside.got, outside.want)
				}
			}
		}
	}
}

// The limits of the interval are the probabilities at which the tails are half of the error.
func TestIntervalSolvesTheTails(t *testing.T) {
	const tolerance = 1e-9
	for _, errorProbability := range []float64{0.05, 0.001} {
		half := number(errorProbability / 2)
		for _, n := range []int{1, 10, 60} {
			for _, k := range []int{0, 1, n / 3, n - 1, n} {
				low, high := stats.Interval(k, n, errorProbability)
				switch {
				case k == 0 && low != 0:
					t.Errorf("0 of %d: low is %g", n, low)
				case k > 0 && (binomial(n, low-tolerance).atLeast[k].Cmp(half) > 0 ||
					binomial(n, low+tolerance).atLeast[k].Cmp(half) < 0):
					t.Errorf("%d of %d at %g: low is %g", k, n, errorProbability, low)
				}
				switch {
				case k == n && high != 1:
					t.Errorf("%d of %d: high is %g", n, n, high)
				case k < n && (binomial(n, high-tolerance).atMost[k].Cmp(half) < 0 ||
					binomial(n, high+tolerance).atMost[k].Cmp(half) > 0):
					t.Errorf("%d of %d at %g: high is %g", k, n, errorProbability, high)
				}
			}
		}
	}
	if low, high := stats.Interval(0, 0, 0.05); low != 0 || high != 1 {
		t.Errorf("without trials nothing is known, but the interval is [%g, %g]", low, high)
	}
}

func TestBounds(t *testing.T) {
	for _, c := range []struct{ want, within, low, high float64 }{
		{0.5, 0.125, 0.375, 0.625},
		{0.25, 0.125, 0.125, 0.375},
		{0.125, 0.25, 0.03125, 0.375},   // low: a quarter of the share
		{0.875, 0.25, 0.625, 0.96875},   // high: a quarter of the rest
		{1, 0.25, 0.75, 2},              // nothing is above 1
		{0.5, 0.4375, 0.125, 0.875},     // both are a quarter
		{0.9375, 0.5, 0.4375, 0.984375}, // low: want-within
	} {
		low, high := stats.Share{Want: c.want, Within: c.within, Error: 0.01}.Bounds()
		if low != c.low || high != c.high {
			t.Errorf("share %g within %g: [%g, %g], want [%g, %g]", c.want, c.within, low, high, c.low, c.high)
		}
	}
}

var shares = []stats.Share{
	{Want: 0.1, Within: 0.15, Error: 0.001},
	{Want: 0.3, Within: 0.2, Error: 0.01},
	{Want: 0.5, Within: 0.15, Error: 0.001},
	{Want: 0.5, Within: 0.4, Error: 0.4},
	{Want: 0.9, Within: 0.15, Error: 0.01},
	{Want: 1, Within: 0.15, Error: 0.001},
}

// path is the probability of one order of k delayed among n samples.
func path(k, n int, p float64) *big.Float {
	result := number(1)
	for range k {
		result.Mul(result, number(p))
	}
	miss := number(0).Sub(number(1), number(p))
	for range n - k {
		result.Mul(result, miss)
	}
	return result
}

// average is the same, averaged over all shares: k!(n-k)!/(n+1)!.
func average(k, n int) *big.Float {
	ways := new(big.Int).Binomial(int64(n), int64(k))
	return number(0).Quo(number(1), number(0).SetInt(ways.Mul(ways, big.NewInt(int64(n+1)))))
}

// judge states the rule of Judge in arithmetic of 400 bits: what was reached once counts.
func judge(s stats.Share, delayed []bool) (stats.Answer, int) {
	low, high := s.Bounds()
	level := number(s.Error / 4)
	reached := func(better, worse *big.Float) bool { return number(0).Mul(better, level).Cmp(worse) >= 0 }
	notLow, notHigh, k := false, high > 1, 0
	for i, yes := range delayed {
		if yes {
			k++
		}
		n := i + 1
		claimed := path(k, n, s.Want)
		if reached(average(k, n), claimed) {
			return stats.Differs, n
		}
		notLow = notLow || reached(claimed, path(k, n, low))
		notHigh = notHigh || reached(claimed, path(k, n, high))
		if notLow && notHigh {
			return stats.Fits, n
		}
	}
	return stats.TooFew, len(delayed)
}

func TestJudgeIsTheExactRule(t *testing.T) {
	random := rand.New(rand.NewPCG(20261126, 2))
	answers := map[stats.Answer]int{}
	for _, s := range shares {
		for _, truth := range []float64{0, 0.1, 0.3, 0.5, 0.7, 0.9, 1} {
			for range 4 {
				delayed := make([]bool, 250)
				for i := range delayed {
					delayed[i] = random.Float64() < truth
				}
				got, used := s.Judge(delayed)
				want, after := judge(s, delayed)
				if got != want || used != after {
					t.Errorf("%+v, %g true: %q after %d, want %q after %d", s, truth, got, used, want, after)
				}
				answers[got]++
			}
		}
	}
	if len(answers) != 3 {
		t.Errorf("not every answer was given: %v", answers)
	}
}

// errors gives the exact probabilities of each answer within most samples of a true share p, by going through all
// counts: an answer depends on the order of the samples only through what was reached on the way.
func errors(s stats.Share, p float64, most int) (fits, differs float64) {
	s.Walk(p, most, func(_ int, f, d float64) bool {
		fits, differs = f, d
		return true
	})
	return fits, differs
}

// The exact probability of a wrong answer stays below a quarter of the stated error, however many samples are drawn.
func TestExactErrors(t *testing.T) {
	for _, s := range shares {
		low, high := s.Bounds()
		if _, refuted := errors(s, s.Want, 1500); refuted > s.Error/4 {
			t.Errorf("%+v: a right claim is refuted with probability %g", s, refuted)
		}
		for _, wrong := range []float64{low, low * 0.9, high, min(high*1.05, (1+high)/2)} {
			if wrong > 1 {
				continue
			}
			if proven, _ := errors(s, wrong, 1500); proven > s.Error/4 {
				t.Errorf("%+v: it is proven with probability %g where %g is true", s, proven, wrong)
			}
		}
	}
}

// The exact probabilities are those of all orders of the samples.
func TestWalkCountsEveryOrder(t *testing.T) {
	s := stats.Share{Want: 0.5, Within: 0.4, Error: 0.4}
	const most, p = 14, 0.3
	fits, differs := 0.0, 0.0
	for order := range 1 << most {
		delayed, k := make([]bool, most), 0
		for i := range delayed {
			if delayed[i] = order>>i&1 == 1; delayed[i] {
				k++
			}
		}
		probability, _ := path(k, most, p).Float64()
		switch answer, _ := s.Judge(delayed); answer {
		case stats.Fits:
			fits += probability
		case stats.Differs:
			differs += probability
		}
	}
	gotFits, gotDiffers := errors(s, p, most)
	if math.Abs(gotFits-fits) > 1e-12 || math.Abs(gotDiffers-differs) > 1e-12 || fits == 0 || differs == 0 {
		t.Errorf("%g fits, %g differs; want %g, %g", gotFits, gotDiffers, fits, differs)
	}
}

// Samples are enough, and one fewer is not.
func TestSamplesAreEnoughAndNotMore(t *testing.T) {
	for _, s := range shares {
		likely, most, err := s.Samples()
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		for n, enough := range map[int]float64{likely: min(0.9, 1-s.Error), most: 1 - s.Error} {
			if proven, _ := errors(s, s.Want, n); proven < enough {
				t.Errorf("%+v: %d samples prove it with probability %.6g only", s, n, proven)
			}
			if proven, _ := errors(s, s.Want, n-1); proven >= enough {
				t.Errorf("%+v: %d samples, although %d prove it with probability %.6g", s, n, n-1, proven)
			}
		}
	}
}

func TestSamplesAccepts(t *testing.T) {
	for _, c := range []struct {
		share stats.Share
		want  string // a part of the error, or empty
	}{
		{stats.Share{Want: 1, Within: 0.2, Error: 0.01}, ""},
		{stats.Share{Want: 0.5, Within: 0.2, Error: 0.49}, ""},
		{stats.Share{Want: 0, Within: 0.2, Error: 0.01}, "cannot test a share of 0 within 0.2 at an error of 0.01"},
		{stats.Share{Want: -0.5, Within: 0.2, Error: 0.01}, "share of -0.5"},
		{stats.Share{Want: 1.01, Within: 0.2, Error: 0.01}, "share of 1.01"},
		{stats.Share{Want: 0.5, Within: 0, Error: 0.01}, "within 0 "},
		{stats.Share{Want: 0.5, Within: -0.1, Error: 0.01}, "within -0.1"},
		{stats.Share{Want: 0.5, Within: 0.2, Error: 0}, "an error of 0"},
		{stats.Share{Want: 0.5, Within: 0.2, Error: -0.01}, "an error of -0.01"},
		{stats.Share{Want: 0.5, Within: 0.2, Error: 0.5}, "an error of 0.5"},
		{stats.Share{Want: 0.005, Within: 0.2, Error: 0.01}, "0.5% from its neighbours takes more than 2000 requests"},
	} {
		_, _, err := c.share.Samples()
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s, want %q", c.share, got, c.want)
		}
	}
}

func TestEarly(t *testing.T) {
	for delay, want := range map[time.Duration]time.Duration{
		100 * time.Millisecond: 5 * time.Millisecond,
		200 * time.Millisecond: 10 * time.Millisecond,
		2 * time.Second:        10 * time.Millisecond,
	} {
		if got := stats.Early(delay); got != want {
			t.Errorf("a delay of %s may seem %s shorter, want %s", delay, got, want)
		}
	}
}

// Each mode at its edges.
func TestModesAtTheirEdges(t *testing.T) {
	const ms = time.Millisecond
	m, err := stats.NewModes(2000*ms, []time.Duration{1500 * ms})
	if err != nil || m != (stats.Modes{Delay: 2000 * ms, Edge: 1750 * ms}) {
		t.Fatalf("an undelayed request of exactly three quarters of the delay: %+v, %v", m, err)
	}
	if _, err := stats.NewModes(2000*ms, []time.Duration{1500*ms + 1}); err == nil {
		t.Error("an undelayed request of more than three quarters of the delay was accepted")
	}
	for latency, want := range map[time.Duration]stats.Mode{
		0:           stats.Fast,
		1750 * ms:   stats.Fast,
		1750*ms + 1: stats.Between,
		1990*ms - 1: stats.Between,
		1990 * ms:   stats.Delayed,
		3000 * ms:   stats.Delayed,
	} {
		if got := m.Of(latency); got != want {
			t.Errorf("%s is mode %d, want %d", latency, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	sorted := []time.Duration{1, 2, 3, 4, 5}
	for q, want := range map[float64]time.Duration{0: 1, 0.19: 1, 0.2: 2, 0.5: 3, 0.79: 4, 0.8: 5, 0.99: 5, 1: 5} {
		if got := stats.Quantile(sorted, q); got != want {
			t.Errorf("quantile %g is %d, want %d", q, got, want)
		}
	}
}
