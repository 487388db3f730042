package stats

// Walk is walk, for the tests of package stats_test.
func (s Share) Walk(p float64, most int, visit func(n int, fits, differs float64) bool) {
	s.walk(p, most, visit)
}
