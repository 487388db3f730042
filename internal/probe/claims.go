package probe

import (
	"net/http"
	"slices"

	"ambientlab/internal/probe/traffic"
)

// Caller is somebody who sends requests to appb.
type Caller string

// The callers.
const (
	Appa       Caller = "appa"        // fortio in appa's pod, to appb's Service
	Gateway    Caller = "gateway"     // this host, through the ingress gateway
	Outsider   Caller = "outsider"    // a pod in the mesh with a service account of its own
	Unmeshed   Caller = "unmeshed"    // a pod that is not in the mesh
	AppaDirect Caller = "appa-direct" // appa's pod, straight to the address of appb's pod
)

// Service accounts of the callers.
const (
	accountAppa     = "appa"
	accountGateway  = "gateway-istio"
	accountOutsider = "outsider"
)

// account is the service account as which a caller is seen; none outside the mesh.
func (c Caller) account() string {
	return map[Caller]string{
		Appa: accountAppa, AppaDirect: accountAppa, Gateway: accountGateway, Outsider: accountOutsider,
	}[c]
}

// Paths that stand for what the lessons' settings say.
const (
	faultPath = "{the fault's path}"
	otherPath = "{another path}"
)

// Counts that stand for what the lessons' settings ask for.
const (
	few     = 5
	several = 20
	// enoughForShare is as many as the statement about the share needs, enoughForNone as many as it takes to notice
	// that a fault still acts.
	enoughForShare = -1
	enoughForNone  = -2
)

// way is how requests are to reach appb.
type way int

const (
	anyWay  way = iota
	through     // across the waypoint, each exactly once, seen there as its caller
	around      // past the waypoint
)

// Expect is what must become of every request of a shot.
type Expect struct {
	// Status is the HTTP status, traffic.NoAnswer where the connection must be refused.
	Status int
	// Body of the answer, where it matters.
	Body string
	// Way is how the requests travel.
	Way way
	// Prompt: none is delayed. Share: as many are delayed as the fault says, by as much.
	Prompt, Share bool
	// Counted: the waypoint's RBAC filter counts each as denied.
	Counted bool
}

// Shot is a batch of equal requests and what is expected of them.
type Shot struct {
	Who          Caller
	Method, Path string
	// Host is asked for instead of appb's, for the gateway only.
	Host   string
	Count  int
	Expect Expect
}

// Claim is one statement about the lab, with the requests that decide it.
type Claim struct {
	// ID is stable; Title and Learn are for people.
	ID, Title, Learn string
	// When says whether the claim is made at all with the lessons as they are.
	When func(Lessons) bool
	// Controls are measured first. They show that the effect is the lesson's and not anything else's.
	Controls []Shot
	Shot     Shot
}

// NeedsWaypoint tells whether the claim can only hold for requests that cross the waypoint.
func (c Claim) NeedsWaypoint() bool {
	return slices.ContainsFunc(everyShot(c), func(s Shot) bool { return s.Expect.Way == through })
}

// Claims is everything that the lab states about itself.
func Claims() []Claim {
	// denied is what the waypoint does with a request that its policy does not allow.
	denied := Expect{Status: http.StatusForbidden, Body: traffic.DeniedBody, Way: through, Prompt: true, Counted: true}
	return []Claim{
		{
			ID: "reach-appa", Title: "appa reaches appb",
			Learn: "Two applications in one mesh talk by name; nothing in them knows of the mesh.",
			When:  admitted(Appa),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: http.StatusOK}},
		},
		{
			ID: "reach-gateway", Title: "the outside reaches appb through the gateway",
			Learn: "The HTTPRoute sends the host name appb.opssec.in to appb.",
			When:  admitted(Gateway),
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: http.StatusOK}},
		},
		{
			ID: "gateway-other-host", Title: "the gateway knows no other host",
			Learn: "A control: what has no route is answered by the gateway itself, so a 200 above is really appb's.",
			When:  always,
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: otherPath, Host: "appa.opssec.in", Count: few, Expect: Expect{Status: http.StatusNotFound}},
		},
		{
			ID: "waypoint-appa", Title: "appa's requests cross the waypoint, seen as appa",
			Learn: "ztunnel sends what is addressed to appb's Service to the waypoint and vouches for the caller with mutual TLS.",
			When:  all(waypointOn, admitted(Appa)),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK, Way: through}},
		},
		{
			ID: "waypoint-gateway", Title: "the gateway's requests cross the waypoint, seen as the gateway",
			Learn: "Only because the Service bears istio.io/ingress-use-waypoint; without it the gateway goes straight to the pod.",
			When:  all(waypointOn, admitted(Gateway)),
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK, Way: through}},
		},
		{
			ID: "waypoint-off", Title: "with the lesson off, nothing stands between appa and appb",
			Learn: "A control: the effect of the waypoint is gone with it.",
			When:  all(not(waypointOn), admitted(Appa)),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK, Way: around}},
		},
		{
			ID: "fault-appa", Title: "the set share of appa's requests is delayed, by what was set, and no other path",
			Learn:    "The waypoint runs the VirtualService; the fault filter draws lots for each request.",
			When:     all(faultOn, admitted(Appa)),
			Controls: []Shot{{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: enoughForNone, Expect: Expect{Status: http.StatusOK, Prompt: true}}},
			Shot:     Shot{Who: Appa, Method: http.MethodGet, Path: faultPath, Count: enoughForShare, Expect: Expect{Status: http.StatusOK, Way: through, Share: true}},
		},
		{
			ID: "fault-gateway", Title: "the set share of the gateway's requests is delayed, once, and no other path",
			Learn:    "The gateway does not run the mesh's VirtualService itself; the delay is the waypoint's alone.",
			When:     all(faultOn, admitted(Gateway)),
			Controls: []Shot{{Who: Gateway, Method: http.MethodGet, Path: otherPath, Count: enoughForNone, Expect: Expect{Status: http.StatusOK, Prompt: true}}},
			Shot:     Shot{Who: Gateway, Method: http.MethodGet, Path: faultPath, Count: enoughForShare, Expect: Expect{Status: http.StatusOK, Way: through, Share: true}},
		},
		{
			ID: "fault-off-appa", Title: "with the fault off, no request of appa's is delayed",
			Learn: "A control: the effect of the fault is gone with it.",
			When:  all(not(faultOn), admitted(Appa)),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: faultPath, Count: enoughForNone, Expect: Expect{Status: http.StatusOK, Prompt: true}},
		},
		{
			ID: "fault-off-gateway", Title: "with the fault off, no request through the gateway is delayed",
			Learn: "A control: the effect of the fault is gone with it.",
			When:  all(not(faultOn), admitted(Gateway)),
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: faultPath, Count: enoughForNone, Expect: Expect{Status: http.StatusOK, Prompt: true}},
		},
		{
			ID: "authz-get-appa", Title: "appa may GET",
			Learn: "The policy is attached to the Service with targetRefs, so the waypoint enforces it and sees methods and paths.",
			When:  all(authzOn, admitted(Appa)),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK, Way: through}},
		},
		{
			ID: "authz-get-gateway", Title: "the gateway may GET",
			Learn: "The gateway's identity is one of those that the policy lets in.",
			When:  all(authzOn, admitted(Gateway)),
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK, Way: through}},
		},
		{
			ID: "authz-post-appa", Title: "appa may not POST, and is told so at once",
			Learn:    "The policy's filter stands before the fault's: a request that is denied is never delayed.",
			When:     all(authzOn, admitted(Appa)),
			Controls: []Shot{{Who: Appa, Method: http.MethodPost, Path: faultPath, Count: enoughForNone, Expect: denied}},
			Shot:     Shot{Who: Appa, Method: http.MethodPost, Path: "/post", Count: several, Expect: denied},
		},
		{
			ID: "authz-post-gateway", Title: "the gateway may not POST, and is told so at once",
			Learn: "The same rule holds for what comes from outside.",
			When:  all(authzOn, admitted(Gateway)),
			Shot:  Shot{Who: Gateway, Method: http.MethodPost, Path: "/post", Count: several, Expect: denied},
		},
		{
			ID: "authz-outsider", Title: "another service account may not even GET",
			Learn: "An ALLOW policy lets in whom it names, and nobody else.",
			When:  all(authzOn, not(admitted(Outsider))),
			Shot:  Shot{Who: Outsider, Method: http.MethodGet, Path: otherPath, Count: several, Expect: denied},
		},
		{
			ID: "authz-taken-out-appa", Title: "appa, taken out of the policy, may not GET any more",
			Learn: "The same caller, the same request: only the policy has changed.",
			When:  all(authzOn, not(admitted(Appa))),
			Shot:  Shot{Who: Appa, Method: http.MethodGet, Path: otherPath, Count: several, Expect: denied},
		},
		{
			ID: "authz-taken-out-gateway", Title: "the gateway, taken out of the policy, may not GET any more",
			Learn: "The same caller, the same request: only the policy has changed.",
			When:  all(authzOn, not(admitted(Gateway))),
			Shot:  Shot{Who: Gateway, Method: http.MethodGet, Path: otherPath, Count: several, Expect: denied},
		},
		{
			ID: "authz-off-post", Title: "with the policy off, appa may POST",
			Learn: "A control: the effect of the policy is gone with it.",
			When:  not(authzOn),
			Shot:  Shot{Who: Appa, Method: http.MethodPost, Path: "/post", Count: several, Expect: Expect{Status: http.StatusOK}},
		},
		{
			ID: "authz-off-outsider", Title: "with the policy off, another service account may GET",
			Learn: "A control: the outsider is turned away by the policy and by nothing else.",
			When:  all(not(authzOn), not(strict)),
			Shot:  Shot{Who: Outsider, Method: http.MethodGet, Path: otherPath, Count: several, Expect: Expect{Status: http.StatusOK}},
		},
		{
			ID: "direct-open", Title: "the way around the waypoint is open: straight to appb's pod",
			Learn: "What is addressed to a pod's own address does not cross the waypoint, so no layer-7 rule holds there. `mage sm:authz -strict` closes it.",
			When:  not(strict),
			Shot:  Shot{Who: AppaDirect, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: http.StatusOK, Way: around}},
		},
		{
			ID: "direct-closed", Title: "the way around the waypoint is closed: straight to appb's pod",
			Learn: "ztunnel at appb's pod lets in the waypoint alone and resets every other connection; there is no HTTP answer.",
			When:  strict,
			Shot:  Shot{Who: AppaDirect, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: traffic.NoAnswer, Way: around}},
		},
		{
			ID: "unmeshed-open", Title: "a pod outside the mesh reaches appb in plain text",
			Learn: "It has no ztunnel, hence no identity and no waypoint. `mage sm:authz -strict` closes this way, too.",
			When:  not(strict),
			Shot:  Shot{Who: Unmeshed, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: http.StatusOK, Way: around}},
		},
		{
			ID: "unmeshed-closed", Title: "a pod outside the mesh does not reach appb",
			Learn: "With STRICT mutual TLS, plain text is reset at appb's pod.",
			When:  strict,
			Shot:  Shot{Who: Unmeshed, Method: http.MethodGet, Path: otherPath, Count: few, Expect: Expect{Status: traffic.NoAnswer, Way: around}},
		},
	}
}

func always(Lessons) bool       { return true }
func waypointOn(l Lessons) bool { return l.Waypoint }
func faultOn(l Lessons) bool    { return l.Fault.On }
func authzOn(l Lessons) bool    { return l.Authz.On }
func strict(l Lessons) bool     { return l.Authz.Strict }

func admitted(who Caller) func(Lessons) bool {
	return func(l Lessons) bool { return l.allows(who.account()) }
}

func not(condition func(Lessons) bool) func(Lessons) bool {
	return func(l Lessons) bool { return !condition(l) }
}

func all(conditions ...func(Lessons) bool) func(Lessons) bool {
	return func(l Lessons) bool {
		for _, holds := range conditions {
			if !holds(l) {
				return false
			}
		}
		return true
	}
}
