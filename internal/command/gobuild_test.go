package command

import (
	"slices"
	"testing"
)

func TestGoBuild(t *testing.T) {
	for _, tt := range []struct {
		collector, limit string
		want             []string
	}{
		{"", "", []string{"GOGC=400", "GOMEMLIMIT=1GiB"}},
		{"", "4GiB", []string{"GOGC=400"}},
		{"50", "", nil},
		{"50", "4GiB", nil},
	} {
		t.Setenv("GOGC", tt.collector)
		t.Setenv("GOMEMLIMIT", tt.limit)
		if got := GoBuild(); !slices.Equal(got, tt.want) {
			t.Errorf("GOGC=%s GOMEMLIMIT=%s: %v, want %v", tt.collector, tt.limit, got, tt.want)
		}
	}
}
