// Package stats answers the questions that a proof asks of its samples: how large is the share of delayed requests, how
// many requests must be sent to know it, and which of them were delayed at all.
//
// Everything is exact (binomial tails are summed, nothing is approximated by a normal curve), because the errors that a
// proof may make are stated as numbers and tested as such.
package stats

import "math"

// AtMost is P(X <= k) for X binomial with n trials of probability p.
func AtMost(k, n int, p float64) float64 { return sum(0, min(k, n), n, p) }

// AtLeast is P(X >= k) for X binomial with n trials of probability p.
func AtLeast(k, n int, p float64) float64 { return sum(max(k, 0), n, n, p) }

// Interval is the Clopper-Pearson interval of a probability of which k of n trials were seen: it misses the true value
// with at most the given error probability, half of it on each side.
func Interval(k, n int, errorProbability float64) (low, high float64) {
	low, high = 0, 1
	if k > 0 {
		low = bisect(0, 1, func(p float64) bool { return AtLeast(k, n, p) < errorProbability/2 })
	}
	if k < n {
		high = bisect(0, 1, func(p float64) bool { return AtMost(k, n, p) >= errorProbability/2 })
	}
	return low, high
}

// bisect finds the p between low and high at which below turns from true to false.
func bisect(low, high float64, below func(p float64) bool) float64 {
	for range 60 {
		if middle := (low + high) / 2; below(middle) {
			low = middle
		} else {
			high = middle
		}
	}
	return (low + high) / 2
}

// sum is P(from <= X <= to). Adding the terms of either tail directly keeps the precision of a tiny probability.
func sum(from, to, n int, p float64) float64 {
	total := 0.0
	for k := from; k <= to; k++ {
		total += exactly(k, n, p)
	}
	return min(total, 1)
}

func exactly(k, n int, p float64) float64 {
	if p <= 0 {
		return one(k == 0)
	}
	if p >= 1 {
		return one(k == n)
	}
	return math.Exp(choose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

func choose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func one(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
