package probe

// Facts is what a look at the cluster's objects says, for telling a learner why a claim does not hold. Empty fields
// were not found.
type Facts struct {
	// UseWaypoint and IngressUseWaypoint are the labels on Service appb, WaypointBound the message of its condition
	// istio.io/WaypointBound.
	UseWaypoint, IngressUseWaypoint, WaypointBound string
	// WaypointExists says that its Gateway does; Programmed is that condition's message when it is not True;
	// WaypointReady is the number of its pods that are ready, WaypointWaits why the others are not.
	WaypointExists, Programmed bool
	ProgrammedMessage          string
	WaypointReady              int
	WaypointWaits              string
	// AppaMeshed says that appa's pod is redirected into the mesh, AppaWhyNot why it is not.
	AppaMeshed bool
	AppaWhyNot string
	// AppbMeshed is the same of appb's pod.
	AppbMeshed bool
	Policies   []PolicyFact
	Routes     []RouteFact
	// StrictTLS says that a PeerAuthentication asks for STRICT.
	StrictTLS bool
}

// PolicyFact is an AuthorizationPolicy.
type PolicyFact struct {
	Name, Action string
	// Selector says that it selects workloads, Targets what its targetRefs name, such as Service/appb.
	Selector bool
	Targets  []string
	// Layer7 says that it holds methods, paths or hosts, which only a waypoint can enforce.
	Layer7 bool
	// Message is Istio's, where the policy is not accepted.
	Message string
}

// RouteFact is a VirtualService.
type RouteFact struct {
	Name    string
	Hosts   []string
	Percent float64
	Delay   string
	Paths   []string
}
