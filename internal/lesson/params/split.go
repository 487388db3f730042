package params

import (
	"fmt"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
)

// Split is how the requests to appb are shared between its two versions.
type Split struct {
	// Weight is the percentage of the requests that version 1 gets, 1 to 99; version 2 gets the others.
	Weight int `json:"weight"`
}

// DefaultSplit is a first step of a canary release: one request of ten reaches the new version.
func DefaultSplit() Split { return Split{Weight: 90} }

// Rest is the percentage of the requests that version 2 gets.
func (s Split) Rest() int { return 100 - s.Weight }

// Share is the share of the requests that version 2 gets, 0 to 1.
func (s Split) Share() float64 { return float64(s.Rest()) / 100 }

// Weights are the percentages by the names of the versions' Services.
func (s Split) Weights() map[string]int {
	return map[string]int{names.AppBV1: s.Weight, names.AppBV2: s.Rest()}
}

// Validate refuses, with problem.SettingInvalid, a weight that leaves a version without requests.
func (s Split) Validate() error {
	if s.Weight < 1 || s.Weight > 99 {
		return problem.New(problem.SettingInvalid, nil, "-weight=%d is not accepted; accepted: 1 to 99", s.Weight)
	}
	return nil
}

// String describes the split.
func (s Split) String() string {
	return fmt.Sprintf("%d %% of the requests to version 1 of appb, %d %% to version 2", s.Weight, s.Rest())
}
