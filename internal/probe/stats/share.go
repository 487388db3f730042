package stats

import "fmt"

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
// Deciding is two tests on the same count. The claim is refuted when so extreme a count would be seen with at most
// probability Error although the share is right. It is proven when the count would be seen with at most probability
// Error although the share is off by Within or more, on either side (an equivalence test). In between, nothing is said.
// Both tests are run at a quarter of Error, which leaves room for what the model does not know.
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

// Judge decides from k delayed of n.
func (s Share) Judge(k, n int) Answer {
	if s.tooFew(k, n) || s.tooMany(k, n) {
		return Differs
	}
	if s.aboveLow(k, n) && s.belowHigh(k, n) {
		return Fits
	}
	return TooFew
}

// tooFew and tooMany are the two sides of the test that refutes the claim.
func (s Share) tooFew(k, n int) bool  { return AtMost(k, n, s.Want) <= s.level()/2 }
func (s Share) tooMany(k, n int) bool { return AtLeast(k, n, s.Want) <= s.level()/2 }

// aboveLow and belowHigh are the tests that rule out the two bounds.
func (s Share) aboveLow(k, n int) bool {
	low, _ := s.Bounds()
	return AtLeast(k, n, low) <= s.level()
}

func (s Share) belowHigh(k, n int) bool {
	_, high := s.Bounds()
	return high > 1 || AtMost(k, n, high) <= s.level()
}

func (s Share) level() float64 { return s.Error / 4 }

// Samples is a number of requests, close to the smallest, with which a right claim is proven with probability at least
// 1-Error. When that would be more than MaxSamples it returns MaxSamples and an error: with so few, the answer will be
// TooFew.
func (s Share) Samples() (int, error) {
	if s.Want <= 0 || s.Want > 1 || s.Within <= 0 || s.Error <= 0 || s.Error >= 0.5 {
		return 0, fmt.Errorf("cannot test a share of %g within %g at an error of %g", s.Want, s.Within, s.Error)
	}
	enough := func(n int) bool { return s.power(n) >= 1-s.Error }
	if !enough(MaxSamples) {
		return MaxSamples, fmt.Errorf("telling a share of %.3g%% from its neighbours takes more than %d requests",
			s.Want*100, MaxSamples)
	}
	// Power rises with n but for ripples of a few requests, so bisection ends on an n that is enough.
	low, high := 1, MaxSamples
	for high-low > 1 {
		if middle := (low + high) / 2; enough(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high, nil
}

// power is the probability of Fits when the share is right.
func (s Share) power(n int) float64 {
	first, last := s.fitting(n)
	if first > last {
		return 0
	}
	return sum(first, last, n, s.Want)
}

// fitting is the range of counts for which Judge answers Fits. Each test is monotone in the count, so bisection over
// the counts finds its edge.
func (s Share) fitting(n int) (first, last int) {
	first = smallest(n, func(k int) bool { return s.aboveLow(k, n) && !s.tooFew(k, n) })
	beyond := smallest(n, func(k int) bool { return !s.belowHigh(k, n) || s.tooMany(k, n) })
	return first, beyond - 1
}

// smallest is the first k in 0..n for which holds is true, or n+1.
func smallest(n int, holds func(k int) bool) int {
	low, high := 0, n+1
	for low < high {
		if middle := (low + high) / 2; holds(middle) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low
}
