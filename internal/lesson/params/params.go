// Package params holds the parameters of the lessons: what a learner chooses, how it is checked, and what is recorded
// in the cluster. The lessons, the checks of a proxy's configuration and the traffic proofs share these types.
package params

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
)

// Fault is a delay that the waypoint adds to a share of the requests to appb.
type Fault struct {
	// Percent of the requests are delayed: above 0, up to 100.
	Percent float64 `json:"percent"`
	// Delay is from 10 milliseconds to one minute.
	Delay time.Duration `json:"delayNanoseconds"`
	// Path is a prefix of the paths that are delayed, or with Exact the one path that is.
	Path  string `json:"path"`
	Exact bool   `json:"exact,omitempty"`
}

// DefaultFault is the one of the blog: half of the requests under /headers are delayed by two seconds.
func DefaultFault() Fault {
	return Fault{Percent: 50, Delay: 2 * time.Second, Path: "/headers"}
}

// String describes the delay, such as "50 % of /headers* by 2s".
func (f Fault) String() string {
	return fmt.Sprintf("%v %% of %s by %s", f.Percent, f.Paths(), f.Delay)
}

// Paths names the paths that are delayed: /headers* for a prefix, /headers for the path alone.
func (f Fault) Paths() string {
	if f.Exact {
		return f.Path
	}
	return f.Path + "*"
}

// OtherPath is a path of appb that is answered with 200 and is not delayed. A prefix such as / covers every path; then
// it is one that is delayed.
func (f Fault) OtherPath() string {
	for _, path := range []string{"/ip", "/headers"} {
		if !f.Covers(path) {
			return path
		}
	}
	return "/ip"
}

// Validate refuses, with problem.SettingInvalid, what the lab does not accept. It names every wrong flag.
func (f Fault) Validate() error {
	var wrong []string
	// The proxies are told millionths: less than one is no delay.
	if math.IsNaN(f.Percent) || f.Percent <= 0 || f.Percent > 100 || f.Millionths() == 0 {
		wrong = append(wrong, fmt.Sprintf("-percent=%v is not accepted; accepted: 0.0001 to 100", f.Percent))
	}
	if f.Delay < 10*time.Millisecond || f.Delay > time.Minute {
		wrong = append(wrong, fmt.Sprintf("-delay=%v is not accepted; accepted: 10ms to 1m", f.Delay))
	}
	if !strings.HasPrefix(f.Path, "/") || strings.ContainsAny(f.Path, " ?#\n\t\"\\") {
		wrong = append(wrong,
			fmt.Sprintf("-path=%q is not accepted; accepted: a path that starts with / and holds no space, quote, "+
				"? or #", f.Path))
	}
	if len(wrong) > 0 {
		return problem.New(problem.SettingInvalid, nil, "%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// Authz is a policy that lets some ServiceAccounts GET from appb, and refuses every other request.
type Authz struct {
	// Allowed are the ServiceAccounts that may GET, in the order of Callers. None means that every request is refused.
	Allowed []string `json:"allowed"`
	// Strict also closes the ways around the waypoint.
	Strict bool `json:"strict"`
}

// Callers are the ServiceAccounts that sm:authz lets in unless told otherwise.
func Callers() []string { return []string{names.AppA, names.GatewayAccount} }

// NewAuthz lets in all Callers but those in without, a list separated by commas or spaces. An unknown name is refused
// with problem.SettingInvalid.
func NewAuthz(without string, strict bool) (Authz, error) {
	allowed := Callers()
	for _, name := range strings.FieldsFunc(without, func(c rune) bool { return c == ',' || c == ' ' }) {
		if !slices.Contains(Callers(), name) {
			return Authz{}, problem.New(problem.SettingInvalid, nil,
				"-without=%q is not accepted; accepted: %s, %s or both with a comma", without, names.AppA,
				names.GatewayAccount)
		}
		allowed = slices.DeleteFunc(allowed, func(account string) bool { return account == name })
	}
	return Authz{Allowed: allowed, Strict: strict}, nil
}

// Without are the Callers that the policy does not let in.
func (a Authz) Without() []string {
	return slices.DeleteFunc(Callers(), func(account string) bool { return slices.Contains(a.Allowed, account) })
}

// Allows tells whether a ServiceAccount may GET.
func (a Authz) Allows(serviceAccount string) bool { return slices.Contains(a.Allowed, serviceAccount) }

// Principals are the allowed identities of a namespace, as Istio's policies write them.
func (a Authz) Principals(trustDomain, namespace string) []string {
	principals := make([]string, 0, len(a.Allowed))
	for _, account := range a.Allowed {
		principals = append(principals, names.Principal(trustDomain, namespace, account))
	}
	return principals
}
