package stats_test

import (
	"math"
	"math/rand/v2"
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

// runs is how often what is claimed by default is simulated, someRuns how often other shares are.
const runs, someRuns = 10_000, 3_000

func test(want float64) stats.Share { return stats.Share{Want: want, Within: 0.15, Error: 0.001} }

// The rates of wrong answers over simulated runs stay below the stated error, although each run ends when its answer is
// sure: at the very edge of what is told apart, beyond it, and for a right claim.
func TestSimulatedErrorRates(t *testing.T) {
	for _, want := range []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1} {
		s := test(want)
		likely, most, err := s.Samples()
		if err != nil {
			t.Fatal(err)
		}
		low, high := s.Bounds()
		right := simulate(s, most, want, someRuns, 1)
		t.Logf("%3.0f%%: at most %d, of %d right runs %d refuted, %d inconclusive; on average %.0f requests", want*100,
			most, someRuns, right.answers[stats.Differs], right.answers[stats.TooFew], right.mean())
		if float64(right.answers[stats.Differs]) > s.Error*someRuns ||
			float64(right.answers[stats.TooFew]) > 2*s.Error*someRuns {
			t.Errorf("share %g, at most %d: %v", want, most, right.answers)
		}
		if right.early(likely) < someRuns*87/100 {
			t.Errorf("share %g: only %d of %d runs were sure after %d", want, right.early(likely), someRuns, likely)
		}
		for i, wrong := range []float64{low, low / 2, high, (1 + high) / 2} {
			if wrong > 1 {
				continue
			}
			found := simulate(s, most, wrong, someRuns, uint64(2+i))
			if float64(found.answers[stats.Fits]) > s.Error*someRuns {
				t.Errorf("share %g claimed, %g true: %v", want, wrong, found.answers)
			}
		}
	}
}

// What is answered where half is claimed, for true shares from right to wrong: the right one is practically never
// refuted and one that is off by Within practically never proven. One that is off by less is not to be told apart.
func TestAnswersWhereHalfIsClaimed(t *testing.T) {
	s := test(0.5)
	_, most, err := s.Samples()
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		truth                   float64
		proven, refuted, unsure [2]float64 // shares of the runs, from and to
	}{
		{0.2, [2]float64{0, 0}, [2]float64{0.999, 1}, [2]float64{0, 0.001}},
		{0.3, [2]float64{0, 0}, [2]float64{0.999, 1}, [2]float64{0, 0.001}},
		{0.35, [2]float64{0, 0.001}, [2]float64{0.99, 1}, [2]float64{0, 0.01}},
		{0.45, [2]float64{0.7, 0.85}, [2]float64{0.02, 0.05}, [2]float64{0.1, 0.3}},
		{0.5, [2]float64{0.998, 1}, [2]float64{0, 0.001}, [2]float64{0, 0.002}},
		{0.55, [2]float64{0.7, 0.85}, [2]float64{0.02, 0.05}, [2]float64{0.1, 0.3}},
		{0.65, [2]float64{0, 0.001}, [2]float64{0.99, 1}, [2]float64{0, 0.01}},
		{0.7, [2]float64{0, 0}, [2]float64{0.999, 1}, [2]float64{0, 0.001}},
	} {
		found := simulate(s, most, c.truth, runs, uint64(100+i))
		t.Logf("%2.0f%% true: %v, on average %.0f requests", c.truth*100, found.answers, found.mean())
		for answer, limits := range map[stats.Answer][2]float64{
			stats.Fits: c.proven, stats.Differs: c.refuted, stats.TooFew: c.unsure,
		} {
			if share := float64(found.answers[answer]) / runs; share < limits[0] || share > limits[1] {
				t.Errorf("%g true: %q in %g of the runs, want %g to %g", c.truth, answer, share, limits[0], limits[1])
			}
		}
	}
}

// The interval holds the true share at every number of samples at once: so long a run seldom leaves it, wherever it is
// stopped. The interval for a fixed number is left far more often, which is why it must not be used where the number
// depends on the samples.
func TestSequenceHoldsHoweverLongOneLooks(t *testing.T) {
	const truth, length, errorProbability, samples = 0.5, 300, 0.05, 500
	type limits struct{ low, high float64 }
	known := map[[2]int][2]limits{}
	random := rand.New(rand.NewPCG(20261126, 1))
	left, leftFixed := 0, 0
	for range samples {
		k, out, outFixed := 0, false, false
		for n := 1; n <= length; n++ {
			if random.Float64() < truth {
				k++
			}
			if n%10 != 0 {
				continue
			}
			at, seen := known[[2]int{k, n}]
			if !seen {
				at[0].low, at[0].high = stats.Sequence(k, n, errorProbability)
				at[1].low, at[1].high = stats.Interval(k, n, errorProbability)
				known[[2]int{k, n}] = at
			}
			out = out || truth < at[0].low || truth > at[0].high
			outFixed = outFixed || truth < at[1].low || truth > at[1].high
		}
		left += one(out)
		leftFixed += one(outFixed)
	}
	if t.Logf("left in %d of %d runs, the fixed interval in %d", left, samples, leftFixed); left > samples*5/100 ||
		leftFixed < samples*10/100 {
		t.Error("the interval does not hold as stated, or the simulation shows nothing")
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func TestSequenceKnownValues(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 0, 0, 1},
		{0, 10, 0, 1 - math.Pow(0.05/11, 0.1)}, // where (1-p)^10 is 0.05 times the average 1/11
		{10, 10, math.Pow(0.05/11, 0.1), 1},
	} {
		low, high := stats.Sequence(c.k, c.n, 0.05)
		if math.Abs(low-c.low) > 1e-9 || math.Abs(high-c.high) > 1e-9 {
			t.Errorf("%d of %d: [%.9f, %.9f], want [%.9f, %.9f]", c.k, c.n, low, high, c.low, c.high)
		}
	}
	low, high := stats.Sequence(50, 100, 0.05)
	if fixedLow, fixedHigh := stats.Interval(50, 100, 0.05); low >= fixedLow || high <= fixedHigh ||
		math.Abs(low+high-1) > 1e-9 {
		t.Errorf("50 of 100: [%g, %g]", low, high)
	}
}

func TestSamplesRefusesWhatCannotBeKnown(t *testing.T) {
	likely, most, err := test(0.005).Samples()
	if err == nil || most != stats.MaxSamples || likely != stats.MaxSamples {
		t.Errorf("0.5%%: %d, %d, %v", likely, most, err)
	}
	for _, s := range []stats.Share{{}, {Want: 0.5}, {Want: 2, Within: 0.1, Error: 0.01}} {
		if _, _, err := s.Samples(); err == nil {
			t.Errorf("%+v accepted", s)
		}
	}
	if a, used := test(0.5).Judge(nil); a != stats.TooFew || used != 0 {
		t.Errorf("no samples: %s after %d", a, used)
	}
	if a, used := test(0.5).Judge(make([]bool, 5)); a != stats.TooFew || used != 5 {
		t.Errorf("0 of 5: %s after %d", a, used)
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

// simulation is what became of many runs.
type simulation struct {
	answers map[stats.Answer]int
	used    []int
}

func (s simulation) mean() float64 {
	total := 0
	for _, n := range s.used {
		total += n
	}
	return float64(total) / float64(len(s.used))
}

// early is how many runs took at most n requests.
func (s simulation) early(n int) (count int) {
	for _, used := range s.used {
		count += one(used <= n)
	}
	return count
}

// simulate draws request after request of many runs, each of which ends when its answer is sure, or after most.
func simulate(s stats.Share, most int, truth float64, runs int, seed uint64) simulation {
	random := rand.New(rand.NewPCG(20261123, seed))
	found := simulation{answers: map[stats.Answer]int{}}
	delayed := make([]bool, most)
	for range runs {
		for i := range delayed {
			delayed[i] = random.Float64() < truth
		}
		answer, used := s.Judge(delayed)
		found.answers[answer]++
		found.used = append(found.used, used)
	}
	return found
}
