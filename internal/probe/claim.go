package probe

import (
	"slices"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
)

// Claim is one statement about the lab, with the evidence that decides it: requests and what must become of them, or
// what the proxies' configuration must say. It is data; the lessons bring their own.
type Claim struct {
	// ID is stable. Lesson is the lesson that makes the claim. Title and Learn are for people.
	ID, Lesson, Title, Learn string
	// When says whether the claim is made with the lessons as they are. Where, if not nil, says whether it is made of
	// what is installed.
	When  func(Lessons) bool
	Where func(Installed) bool
	// Shot are the requests that decide the claim. Controls are sent first; they show that the effect is the lesson's
	// and not anything else's. A claim without requests has no Shot.Caller.
	Controls []Shot
	Shot     Shot
	// Configuration decides the claim where no packets flow.
	Configuration []ConfigurationCheck
	// Causes are likely reasons for the claim not to hold, the more basic first. Those that follow from the caller and
	// from the waypoint need not be given.
	Causes []Cause
	// OnRequest claims are judged only where Env.Only names them: the controls of lessons that are not part of sm:lab.
	OnRequest bool
}

// Lessons lists every lesson in order, on or off, as the user asked for it. What is really in force is for the proofs
// to find.
type Lessons []LessonState

// LessonState is one lesson.
type LessonState struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
	// Text describes a lesson that is on.
	Text string `json:"text,omitempty"`
	// Parameters are those of a lesson that is on, of its type in package params; nil for a lesson that has none.
	Parameters any `json:"parameters,omitempty"`
}

// On tells whether a lesson is on.
func (l Lessons) On(lesson string) bool {
	return slices.ContainsFunc(l, func(s LessonState) bool { return s.Name == lesson && s.On })
}

// ParametersOf gives the parameters of a lesson, and nil while it is off.
func ParametersOf[T any](l Lessons, lesson string) *T {
	for _, s := range l {
		if parameters, ok := s.Parameters.(T); ok && s.Name == lesson && s.On {
			return &parameters
		}
	}
	return nil
}

// Fault gives the parameters of the delay, and nil while it is off.
func (l Lessons) Fault() *params.Fault { return ParametersOf[params.Fault](l, "fault") }

// Authz gives the parameters of the policy, and nil while it is off.
func (l Lessons) Authz() *params.Authz { return ParametersOf[params.Authz](l, "authz") }

// FaultOrDefault gives the parameters of the delay. While it is off they say which requests must not be delayed.
func (l Lessons) FaultOrDefault() params.Fault {
	if fault := l.Fault(); fault != nil {
		return *fault
	}
	return params.DefaultFault()
}

// Installed is what claims may depend on besides the lessons.
type Installed struct {
	// Addons are the telemetry add-ons.
	Addons []string
	// IstioProxy says that gateway and waypoint run Istio's own Envoy, which has extensions that count requests.
	IstioProxy bool
}

// Caller is a sender of requests to appb.
type Caller string

// The callers.
const (
	Appa       Caller = "appa"        // fortio in appa's pod, to appb's Service
	Gateway    Caller = "gateway"     // this host, through the ingress gateway
	Outsider   Caller = "outsider"    // a pod in the mesh with a service account of its own
	Unmeshed   Caller = "unmeshed"    // a pod that is not in the mesh
	AppaDirect Caller = "appa-direct" // appa's pod, straight to the address of appb's pod
	// OutsiderDirect is the outsider's pod, straight to the address of appb's pod.
	OutsiderDirect Caller = "outsider-direct"
)

const accountOutsider = "outsider"

// Account is the service account that a caller is identified by; none outside the mesh.
func (c Caller) Account() string {
	return map[Caller]string{
		Appa: names.AppA, AppaDirect: names.AppA, Gateway: names.GatewayAccount, Outsider: accountOutsider,
		OutsiderDirect: accountOutsider,
	}[c]
}

// Paths that depend on the parameters of the delay.
const (
	FaultPath  = "{the delayed path}"
	LongerPath = "{a path under the delayed path}"
	OtherPath  = "{a path that is not delayed}"
)

// Numbers of requests. EnoughForShare is as many as the statement about the share needs, EnoughForNone as many as it
// takes to notice that a delay is still in force.
const (
	Few            = 5
	Several        = 20
	EnoughForShare = -1
	EnoughForNone  = -2
	// EnoughForPortion is as many as the statement about Shot.Portion needs.
	EnoughForPortion = -3
)

// Route is how requests travel to appb.
type Route int

// The routes.
const (
	AnyRoute Route = iota
	Through        // through the waypoint, each exactly once, with the caller's identity
	Around         // not through the waypoint
)

// OwnStatus expects the status that appb itself gives, whatever it is: a delay does not change it.
const OwnStatus = 0

// Expect is what must become of every request of a shot.
type Expect struct {
	// Status is the HTTP status, OwnStatus, or traffic.NoAnswer where the connection must be refused.
	Status int
	// Body of the answer, where it matters.
	Body  string
	Route Route
	// Prompt: none is delayed. Share: as many are delayed as the fault says, by as much.
	Prompt, Share bool
	// Counted: the waypoint's RBAC filter counts each as denied.
	Counted bool
}

// Shot is a batch of equal requests and what is expected of them.
type Shot struct {
	Caller       Caller
	Method, Path string
	// Host is asked for instead of appb's, for the gateway only.
	Host   string
	Count  int
	Expect Expect
	// Portion is the share of the requests that the judge of Gather is to find, 0 to 1; nil where it finds none.
	Portion func(Lessons) float64
	// Traced: the requests continue a trace of the caller; see traffic.TraceID.
	Traced bool
	// Gather, if not nil, gathers more evidence of the requests.
	Gather Gather
}

// Source is where the evidence for a check of configuration comes from.
type Source string

// The sources: what istiod sends to the proxy of a Gateway, or the objects and the conditions that Istio sets on them.
const (
	GatewayProxy  Source = names.Gateway
	WaypointProxy Source = names.Waypoint
	IstioObjects  Source = "objects"
)

// ConfigurationCheck is one look at the configuration.
type ConfigurationCheck struct {
	Name string
	Of   Source
	// Expect says what the configuration must say, Met whether it does and if not, what it says instead.
	Expect func(Scene) string
	Met    func(Scene, Configured) (met bool, reason string)
}

// Scene is what a check of configuration may compare with.
type Scene struct {
	Lessons
	Target mesh.Target
	// Policy is the policy of lesson authz as it must be enforced.
	Policy mesh.Policy
	// WaypointPrincipal is the waypoint's identity, as Istio's policies write it.
	WaypointPrincipal string
	// WaypointAddresses are those under which the gateway may know the waypoint.
	WaypointAddresses []string
}

// Configured is the evidence: Dump of a proxy, Objects of IstioObjects.
type Configured struct {
	Dump    *mesh.Dump
	Objects *mesh.Objects
}

// Cause is a known reason for a claim that does not hold.
type Cause struct {
	// Find gives what is wrong with the cluster's objects, and nil where this cause does not apply.
	Find func(*mesh.Objects, Lessons) *problem.Problem
	// Effect says what follows from it and what helps; it may be empty.
	Effect string
}

// HasTraffic and HasConfiguration tell which evidence can decide the claim.
func (c Claim) HasTraffic() bool { return c.Shot.Caller != "" }

// HasConfiguration tells whether configuration can decide the claim with the lessons as they are: a waypoint that is
// off has no configuration.
func (c Claim) HasConfiguration(l Lessons) bool { return len(c.checks(l)) > 0 }

func (c Claim) checks(l Lessons) []ConfigurationCheck {
	return slices.DeleteFunc(slices.Clone(c.Configuration),
		func(check ConfigurationCheck) bool { return check.Of == WaypointProxy && !l.On("waypoint") })
}

// NeedsWaypoint tells whether the claim can only hold for requests that go through the waypoint.
func (c Claim) NeedsWaypoint() bool {
	return slices.ContainsFunc(c.shots(), func(s Shot) bool { return s.Expect.Route == Through })
}

func (c Claim) shots() []Shot { return append(slices.Clone(c.Controls), c.Shot) }

// The conditions under which claims are made.

// Always is met with every setting.
func Always(Lessons) bool { return true }

// On is met while a lesson is on.
func On(lesson string) func(Lessons) bool {
	return func(l Lessons) bool { return l.On(lesson) }
}

// Strict is met while every way around the waypoint is closed.
func Strict(l Lessons) bool {
	authz := l.Authz()
	return authz != nil && authz.Strict
}

// Admitted is met while the policies allow a caller to GET. What goes through the waypoint reaches appb's pod with the
// waypoint's identity, which the policy of lesson l4 does not refuse.
func Admitted(c Caller) func(Lessons) bool {
	return func(l Lessons) bool {
		if l.On("l4") && !l.On("waypoint") && c.Account() == names.AppA {
			return false
		}
		authz := l.Authz()
		return authz == nil || authz.Allows(c.Account())
	}
}

// Not is met while a condition is not.
func Not(condition func(Lessons) bool) func(Lessons) bool {
	return func(l Lessons) bool { return !condition(l) }
}

// All is met while every one of the conditions is.
func All(conditions ...func(Lessons) bool) func(Lessons) bool {
	return func(l Lessons) bool {
		return !slices.ContainsFunc(conditions, func(met func(Lessons) bool) bool { return !met(l) })
	}
}
