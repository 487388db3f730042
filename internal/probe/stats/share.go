package stats

import (
	"fmt"
	"math"
)

// Answer is what samples say about a claimed share.
type Answer string

// The answers. TooFew means that the samples fit the claim and something else as well.
const (
	Fits    Answer = "fits"
	Differs Answer = "differs"
	TooFew  Answer = "too few samples"
)

// Share is the claim that a given share of requests is delayed, with the errors that deciding it may make.
//
// The requests are judged one after the other, in the order in which they were sent, until the answer is sure. So the
// number of requests depends on what they show, and tests for a number that is fixed beforehand would err more often
// than they state. These tests hold at every number of requests at once: each follows a likelihood ratio that is a
// martingale while what it tests is true, and such a ratio reaches 1/a with probability a at most, however long one
// looks (Ville's inequality).
//
// The claim is refuted when the likelihood of the samples, averaged over all shares with equal weight, reaches 1/a
// times that of the claimed share (the mixture of Robbins, "Statistical Methods Related to the Law of the Iterated
// Logarithm", 1970; Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
// sequences", 2021). It is proven when the likelihood of the claimed share has reached 1/a times that of a share that
// is off by Within, on either side (Wald, "Sequential Tests of Statistical Hypotheses", 1945). Shares that are further
// off have a smaller probability still, since the ratio is monotone. In between, nothing is said. a is a quarter of
// Error, which leaves room for what the model does not know.
type Share struct {
	// Want is the claimed share, above 0 and at most 1.
	Want float64
	// Within is how far off a share must be told from Want.
	Within float64
	// Error is the highest probability of a wrong answer, for each of the two ways to be wrong.
	Error float64
}

// MaxSamples bounds what Samples asks for.
const MaxSamples = 2000

// Bounds are the nearest shares that proven rules out. Near 0 and 1 they move closer to Want than Within, so that "no
// request is delayed" and "every request is delayed" are told from a small or large share. A bound outside [0,1] means
// that there is nothing to rule out on that side.
func (s Share) Bounds() (low, high float64) {
	low, high = max(s.Want-s.Within, s.Want/4), min(s.Want+s.Within, 1-(1-s.Want)/4)
	if s.Want >= 1 {
		high = 2
	}
	return low, high
}

// Judge decides from samples, in the order in which they were drawn: true is a delayed request. used is how many of
// them were needed, and all of them where the answer is TooFew.
func (s Share) Judge(delayed []bool) (answer Answer, used int) {
	tests := s.tests()
	r, k, average := tests.none, 0, 0.0
	for n, yes := range delayed {
		// average is mixture, from one sample to the next.
		if yes {
			k++
			average += math.Log(float64(k) / float64(n+2))
		} else {
			average += math.Log(float64(n+1-k) / float64(n+2))
		}
		if answer, r = tests.next(r, k, n+1, average); answer != TooFew {
			return answer, n + 1
		}
	}
	return TooFew, len(delayed)
}

// Counted decides from the numbers alone, where the order of the samples is not known: k of n were delayed. n must not
// depend on what the samples show.
func (s Share) Counted(k, n int) Answer {
	tests := s.tests()
	answer, _ := tests.next(tests.none, k, n, mixture(k, n))
	return answer
}

// ruledOut says which of the two bounds the samples have ruled out so far. What was ruled out once stays so.
type ruledOut struct{ low, high bool }

// tests are those of a Share.
type tests struct {
	claimed, low, high likelihood
	// none is the state before the first sample, reached the logarithm of a ratio that decides.
	none    ruledOut
	reached float64
}

func (s Share) tests() tests {
	low, high := s.Bounds()
	return tests{
		newLikelihood(s.Want), newLikelihood(low), newLikelihood(min(high, 1)),
		ruledOut{high: high > 1},
		-math.Log(s.Error / 4),
	}
}

// next judges after n samples, of which k were delayed; average is mixture(k, n).
func (t tests) next(r ruledOut, k, n int, average float64) (Answer, ruledOut) {
	claimed := t.claimed.of(k, n)
	if average-claimed >= t.reached {
		return Differs, r
	}
	r.low = r.low || claimed-t.low.of(k, n) >= t.reached
	r.high = r.high || claimed-t.high.of(k, n) >= t.reached
	if r.low && r.high {
		return Fits, r
	}
	return TooFew, r
}

// likelihood has the logarithms of a share and of what is left to 1.
type likelihood struct{ hit, miss float64 }

func newLikelihood(p float64) likelihood { return likelihood{math.Log(p), math.Log1p(-p)} }

// of is the logarithm of the probability of one order of k delayed among n samples.
func (l likelihood) of(k, n int) float64 { return times(k, l.hit) + times(n-k, l.miss) }

// mixture is the logarithm of the same probability, averaged over all shares p with equal weight: of the Beta function.
func mixture(k, n int) float64 { return -math.Log(float64(n+1)) - choose(n, k) }

// times is k·log, and 0 where k is 0, also of the logarithm of 0.
func times(k int, log float64) float64 {
	if k == 0 {
		return 0
	}
	return float64(k) * log
}

// Sequence bounds the share of which k of n samples were seen. With at most the given error probability the true share
// is ever outside, however many samples are drawn and for whatever reason drawing ends.
func Sequence(k, n int, errorProbability float64) (low, high float64) {
	average, limit := mixture(k, n), -math.Log(errorProbability)
	inside := func(p float64) bool { return average-newLikelihood(p).of(k, n) < limit }
	seen := float64(k) / float64(max(n, 1))
	return bisect(0, seen, func(p float64) bool { return !inside(p) }), bisect(seen, 1, inside)
}

// Samples is how many requests a right claim takes: likely is a number with which it is proven nine times of ten, most
// one with which it is proven with probability 1-Error. Where that would be more than MaxSamples, they are not more
// than MaxSamples and there is an error: the answer may remain TooFew.
func (s Share) Samples() (likely, most int, err error) {
	if s.Want <= 0 || s.Want > 1 || s.Within <= 0 || s.Error <= 0 || s.Error >= 0.5 {
		return 0, 0, fmt.Errorf("cannot test a share of %g within %g at an error of %g", s.Want, s.Within, s.Error)
	}
	likely = MaxSamples
	s.walk(s.Want, MaxSamples, func(n int, fits, _ float64) bool {
		if fits >= 0.9 {
			likely = min(likely, n)
		}
		if fits >= 1-s.Error {
			most = n
		}
		return most == 0
	})
	if most > 0 {
		likely = min(likely, most)
	}
	if most == 0 {
		return likely, MaxSamples, fmt.Errorf(
			"telling a share of %.3g%% from its neighbours takes more than %d requests", s.Want*100, MaxSamples)
	}
	return likely, most, nil
}

// walk gives, for each number of samples up to most, the probabilities that Judge has answered Fits and Differs by
// then, when the true share is p. It ends when visit returns false.
func (s Share) walk(p float64, most int, visit func(n int, fits, differs float64) bool) {
	// undecided has the probability of each state in which nothing is decided, by count of delayed samples.
	tests := s.tests()
	undecided := map[ruledOut][]float64{tests.none: {1}}
	states := []ruledOut{{}, {low: true}, {high: true}}
	fits, differs := 0.0, 0.0
	for n := 1; n <= most; n++ {
		after := map[ruledOut][]float64{}
		for _, r := range states {
			after[r] = make([]float64, n+1)
		}
		average := make([]float64, n+1)
		for k := range average {
			average[k] = mixture(k, n)
		}
		for _, r := range states {
			for k, probability := range undecided[r] {
				for more, chance := range [2]float64{1 - p, p} {
					if probability*chance == 0 {
						continue
					}
					switch answer, to := tests.next(r, k+more, n, average[k+more]); answer {
					case Fits:
						fits += probability * chance
					case Differs:
						differs += probability * chance
					case TooFew:
						after[to][k+more] += probability * chance
					}
				}
			}
		}
		undecided = after
		if !visit(n, fits, differs) {
			return
		}
	}
}
