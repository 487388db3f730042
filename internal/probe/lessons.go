package probe

import (
	"math"
	"slices"
	"time"
)

// Lessons says what of the lab is switched on, which is what the claims are about. It is what was asked for, never
// what was found: finding is the proofs' task.
type Lessons struct {
	// Waypoint says that appb is behind its waypoint.
	Waypoint bool  `json:"waypoint"`
	Fault    Fault `json:"fault"`
	Authz    Authz `json:"authz"`
}

// Fault is the delay lesson. Its parameters matter while it is off, too: they say where no delay is expected.
type Fault struct {
	On bool `json:"on"`
	// Percent of the requests to Path are delayed by Delay.
	Percent float64       `json:"percent"`
	Delay   time.Duration `json:"delayNanoseconds"`
	Path    string        `json:"path"`
}

// Authz is the policy lesson: who may GET, and nobody may do anything else.
type Authz struct {
	On bool `json:"on"`
	// Principals are the service accounts that the policy lets in, such as appa and gateway-istio. Empty means both.
	Principals []string `json:"principals,omitempty"`
	// Without are those among them that were taken out again.
	Without []string `json:"without,omitempty"`
	// Strict closes every way around the waypoint.
	Strict bool `json:"strict"`
}

// The blog's values, which hold where none are given.
const (
	defaultPercent = 50
	defaultDelay   = 2 * time.Second
	defaultPath    = "/headers"
)

// withDefaults fills in what was not said.
func (l Lessons) withDefaults() Lessons {
	if l.Fault.Percent == 0 {
		l.Fault.Percent = defaultPercent
	}
	if l.Fault.Delay == 0 {
		l.Fault.Delay = defaultDelay
	}
	if l.Fault.Path == "" {
		l.Fault.Path = defaultPath
	}
	return l
}

// otherPath is a path of httpbin that the fault is not set on.
func (l Lessons) otherPath() string {
	if l.Fault.Path == "/ip" {
		return "/headers"
	}
	return "/ip"
}

// missed is how many undelayed requests in a row rule out, at the given error probability, that the fault still acts
// on them.
func (l Lessons) missed(errorProbability float64) int {
	share := min(l.Fault.Percent/100, 0.99)
	return min(max(int(math.Ceil(math.Log(errorProbability)/math.Log1p(-share))), 20), 500)
}

// allows tells whether the policy lets a service account in.
func (l Lessons) allows(serviceAccount string) bool {
	if !l.Authz.On {
		return true
	}
	if slices.Contains(l.Authz.Without, serviceAccount) {
		return false
	}
	if len(l.Authz.Principals) == 0 {
		return serviceAccount == accountAppa || serviceAccount == accountGateway
	}
	return slices.Contains(l.Authz.Principals, serviceAccount)
}
