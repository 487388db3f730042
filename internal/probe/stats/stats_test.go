package stats_test

import (
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"ambientlab/internal/probe/stats"
)

// Known values: the tails by exact rational arithmetic, the intervals as published for the exact method (e.g. 0 of 10
// at 95 %: 0 to 1-0.025^(1/10)).
func TestBinomialKnownValues(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want float64
	}{
		{"P(X<=7), 40 fair", stats.AtMost(7, 40, 0.5), 23242039.0 / (1 << 40)},
		{"P(X>=33), 40 fair", stats.AtLeast(33, 40, 0.5), 23242039.0 / (1 << 40)},
		{"P(X<=3), 10 of 0.3", stats.AtMost(3, 10, 0.3), 0.6496107184},
		{"P(X>=1), 10 of 0.1", stats.AtLeast(1, 10, 0.1), 1 - math.Pow(0.9, 10)},
		{"P(X<=-1)", stats.AtMost(-1, 10, 0.3), 0},
		{"P(X>=0)", stats.AtLeast(0, 10, 0.3), 1},
		{"p=0", stats.AtMost(0, 10, 0), 1},
		{"p=1", stats.AtLeast(10, 10, 1), 1},
	} {
		if math.Abs(c.got-c.want) > 1e-9+1e-6*c.want {
			t.Errorf("%s = %.10g, want %.10g", c.name, c.got, c.want)
		}
	}
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 10, 0, 1 - math.Pow(0.025, 0.1)},
		{10, 10, math.Pow(0.025, 0.1), 1},
		{5, 10, 0.1870860, 0.8129140},
		{1, 20, 0.0012651, 0.2487328},
		{50, 100, 0.3983211, 0.6016789},
	} {
		low, high := stats.Interval(c.k, c.n, 0.05)
		if math.Abs(low-c.low) > 1e-6 || math.Abs(high-c.high) > 1e-6 {
			t.Errorf("interval of %d of %d = [%.7f, %.7f], want [%.7f, %.7f]", c.k, c.n, low, high, c.low, c.high)
		}
	}
}

const runs = 10_000

func test(want float64) stats.Share { return stats.Share{Want: want, Within: 0.15, Error: 0.001} }

// The rates of wrong answers over simulated runs stay below the stated error: at the very edge of what is told apart,
// beyond it, and for a right claim.
func TestSimulatedErrorRates(t *testing.T) {
	for _, want := range []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1} {
		s := test(want)
		n, err := s.Samples()
		if err != nil {
			t.Fatal(err)
		}
		low, high := s.Bounds()
		falseRefuted, unsure := 0, 0
		for _, answer := range simulate(s, n, want, 1) {
			switch answer {
			case stats.Differs:
				falseRefuted++
			case stats.TooFew:
				unsure++
			}
		}
		t.Logf("%3.0f%%: n=%d, of %d right runs %d refuted, %d inconclusive", want*100, n, runs, falseRefuted, unsure)
		if float64(falseRefuted) > s.Error*runs || float64(unsure) > 2*s.Error*runs {
			t.Errorf("share %g, n %d: %d of %d right claims refuted, %d undecided", want, n, falseRefuted, runs, unsure)
		}
		for i, wrong := range []float64{low, low / 2, high, (1 + high) / 2} {
			if wrong > 1 {
				continue
			}
			falseProven := 0
			for _, answer := range simulate(s, n, wrong, uint64(2+i)) {
				if answer == stats.Fits {
					falseProven++
				}
			}
			if float64(falseProven) > s.Error*runs {
				t.Errorf("share %g claimed, %g true, n %d: proven in %d of %d runs", want, wrong, n, falseProven, runs)
			}
		}
	}
}

// A 30 % fault where 50 % is claimed is not only never proven but practically always refuted.
func TestThirtyIsNotFifty(t *testing.T) {
	s := test(0.5)
	n, err := s.Samples()
	if err != nil {
		t.Fatal(err)
	}
	count := map[stats.Answer]int{}
	for _, a := range simulate(s, n, 0.3, 7) {
		count[a]++
	}
	if count[stats.Fits] != 0 || count[stats.Differs] < runs*999/1000 {
		t.Errorf("30%% where 50%% is claimed, n=%d: %v", n, count)
	}
}

// What the simulation estimates is also computed: the exact probability of a wrong answer, for every n.
func TestExactErrorsForEveryCount(t *testing.T) {
	for _, want := range []float64{0.1, 0.5, 1} {
		s := test(want)
		low, high := s.Bounds()
		for n := 1; n <= 300; n += 13 {
			var falseRefuted, provenLow, provenHigh float64
			for k := 0; k <= n; k++ {
				switch s.Judge(k, n) {
				case stats.Differs:
					falseRefuted += point(k, n, want)
				case stats.Fits:
					provenLow += point(k, n, low)
					if high <= 1 {
						provenHigh += point(k, n, high)
					}
				}
			}
			if worst := max(falseRefuted, provenLow, provenHigh); worst > s.Error*(1+1e-9) {
				t.Errorf("share %g, n %d: errors %g %g %g", want, n, falseRefuted, provenLow, provenHigh)
			}
		}
	}
}

func TestSamplesRefusesWhatCannotBeKnown(t *testing.T) {
	if n, err := test(0.005).Samples(); err == nil || n != stats.MaxSamples {
		t.Errorf("0.5%%: %d, %v", n, err)
	}
	for _, s := range []stats.Share{{}, {Want: 0.5}, {Want: 2, Within: 0.1, Error: 0.01}} {
		if _, err := s.Samples(); err == nil {
			t.Errorf("%+v accepted", s)
		}
	}
	if a := test(0.5).Judge(0, 0); a != stats.TooFew {
		t.Errorf("no samples: %s", a)
	}
	if a := test(0.5).Judge(10, 20); a != stats.TooFew {
		t.Errorf("10 of 20: %s", a)
	}
}

func TestModes(t *testing.T) {
	ms := func(all ...int) (out []time.Duration) {
		for _, m := range all {
			out = append(out, time.Duration(m)*time.Millisecond)
		}
		return out
	}
	m, err := stats.NewModes(2*time.Second, ms(1, 3, 200))
	if err != nil {
		t.Fatal(err)
	}
	if m.Edge != 1100*time.Millisecond {
		t.Errorf("edge %s", m.Edge)
	}
	s := m.Sort(ms(2003, 5, 1991, 1100, 1989, 2))
	if len(s.Fast) != 3 || len(s.Between) != 1 || len(s.Delayed) != 2 || s.Delayed[0] != 1991*time.Millisecond {
		t.Errorf("sorted %v", s)
	}
	if _, err := stats.NewModes(2*time.Second, ms(1, 1600)); err == nil {
		t.Error("modes that overlap were accepted")
	}
	if _, err := stats.NewModes(2*time.Second, nil); err == nil {
		t.Error("no baseline was accepted")
	}
	if short := (stats.Modes{Delay: 10 * time.Millisecond, Edge: 5 * time.Millisecond}); short.Of(
		time.Millisecond) != stats.Fast {
		t.Error("with a short delay everything counts as delayed")
	}
	if q := stats.Quantile(ms(1, 2, 3, 4), 0.5); q != 3*time.Millisecond {
		t.Errorf("median %s", q)
	}
	if stats.Quantile(nil, 0.5) != 0 {
		t.Error("quantile of nothing")
	}
}

// simulate draws the number of delayed requests of many runs. For the lab's usual share every single request is drawn;
// for the others each run's count, from the table of its distribution, which is the same and takes no time.
func simulate(s stats.Share, n int, truth float64, seed uint64) []stats.Answer {
	random := rand.New(rand.NewPCG(20261123, seed))
	upTo := make([]float64, n+1)
	for k := range upTo {
		upTo[k] = stats.AtMost(k, n, truth)
	}
	known := map[int]stats.Answer{}
	answers := make([]stats.Answer, runs)
	for i := range answers {
		k := 0
		if s.Want == 0.5 {
			for range n {
				if random.Float64() < truth {
					k++
				}
			}
		} else {
			k = min(sort.SearchFloat64s(upTo, random.Float64()), n)
		}
		if _, ok := known[k]; !ok {
			known[k] = s.Judge(k, n)
		}
		answers[i] = known[k]
	}
	return answers
}

func point(k, n int, p float64) float64 { return stats.AtMost(k, n, p) - stats.AtMost(k-1, n, p) }
