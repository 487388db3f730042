package stats

import (
	"fmt"
	"slices"
	"time"
)

// Early is how much earlier than its delay a delayed response may seem to arrive: Envoy's timers count from the time
// that its event loop has cached, which may be some milliseconds old, and clocks round.
func Early(delay time.Duration) time.Duration { return min(10*time.Millisecond, delay/20) }

// Modes sorts latencies into not delayed and delayed.
type Modes struct {
	// Delay is the delay that was set, Edge the latency up to which a request counts as not delayed.
	Delay, Edge time.Duration
}

// NewModes derives the edge from the delay that was set and from latencies of requests that nothing delays: it lies
// halfway between the slowest of those and the delay. Where they come near the delay the two modes cannot be told
// apart, which is an error.
func NewModes(delay time.Duration, baseline []time.Duration) (Modes, error) {
	if len(baseline) == 0 {
		return Modes{}, fmt.Errorf("no undelayed request to compare with")
	}
	slowest := slices.Max(baseline)
	if slowest > delay*3/4 {
		return Modes{}, fmt.Errorf("an undelayed request took %s, too near to the delay of %s to tell them apart",
			slowest.Round(time.Millisecond), delay)
	}
	return Modes{Delay: delay, Edge: (slowest + delay) / 2}, nil
}

// Mode says where a latency belongs.
type Mode int

// The modes. Between belongs to neither: too slow for a request that nothing delays, too fast for the delay.
const (
	Fast Mode = iota
	Between
	Delayed
)

// Of classifies one latency.
func (m Modes) Of(latency time.Duration) Mode {
	if latency >= m.Delay-Early(m.Delay) {
		return Delayed
	}
	if latency <= m.Edge {
		return Fast
	}
	return Between
}

// Sorted is latencies by mode, each in ascending order.
type Sorted struct{ Fast, Between, Delayed []time.Duration }

// Sort classifies all latencies.
func (m Modes) Sort(latencies []time.Duration) Sorted {
	var s Sorted
	for _, l := range slices.Sorted(slices.Values(latencies)) {
		switch m.Of(l) {
		case Fast:
			s.Fast = append(s.Fast, l)
		case Between:
			s.Between = append(s.Between, l)
		case Delayed:
			s.Delayed = append(s.Delayed, l)
		}
	}
	return s
}

// Quantile is the q-quantile (0..1) of latencies in ascending order, and 0 of none.
func Quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
