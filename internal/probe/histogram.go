package probe

import (
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/probe/stats"
)

// Bin is a range of latencies and how many fall into it.
type Bin struct {
	From, To time.Duration
	Count    int
}

// Bins sorts latencies into equal bins that cover 0 to one and a quarter of the delay, so that the delay is the edge of
// a bin; the last bin takes what is longer.
func Bins(latencies []time.Duration, delay time.Duration) []Bin {
	const perDelay, total = 16, 20
	width := max(delay/perDelay, time.Millisecond)
	bins := make([]Bin, total)
	for i := range bins {
		bins[i].From, bins[i].To = time.Duration(i)*width, time.Duration(i+1)*width
	}
	for _, l := range latencies {
		if l < delay && l >= delay-stats.Early(delay) {
			l = delay // counts as delayed, so it is shown there
		}
		bins[min(int(l/width), total-1)].Count++
	}
	return bins
}

// Histogram draws latencies as text; only the rows between the first and the last that hold anything, at most twenty.
func Histogram(latencies []time.Duration, delay time.Duration, width int) string {
	bins := Bins(latencies, delay)
	first, last, most := -1, 0, 1
	for i, b := range bins {
		if b.Count > 0 {
			last = i
			most = max(most, b.Count)
			if first < 0 {
				first = i
			}
		}
	}
	if first < 0 {
		return ""
	}
	var out strings.Builder
	empty := 0
	for _, b := range bins[first : last+1] {
		if b.Count == 0 {
			empty++
			continue
		}
		if empty > 0 {
			fmt.Fprintf(&out, "%16s ┊ nothing\n", "")
			empty = 0
		}
		bar := strings.Repeat("█", max(b.Count*width/most, 1))
		fmt.Fprintf(&out, "%7s–%-8s │%s %d\n", b.From.Round(time.Millisecond), b.To.Round(time.Millisecond), bar,
			b.Count)
	}
	return out.String()
}
