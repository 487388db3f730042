package lab

import (
	"fmt"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/mesh"
)

// configurationClaims are what the lessons say of the proxies' configuration, each with the same names as what
// sm:verify measures where there is traffic. waypoints are the waypoint's addresses.
func (l *Lab) configurationClaims(lessons Lessons, waypoints []string) []configurationClaim {
	callee := l.target().Service
	caller := mesh.Service{Namespace: callee.Namespace, Name: names.AppA, Port: callee.Port}
	fault := params.DefaultFault() // its parameters matter while it is off, too: they say where no delay is expected
	if lessons.Fault != nil {
		fault = *lessons.Fault
	}
	policy := mesh.Policy{Namespace: callee.Namespace, Name: names.GetOnly, Methods: []string{"GET"}}
	if lessons.Authz != nil {
		policy.Principals = lessons.Authz.Principals(l.Settings.Namespace)
	}
	on := func(yes bool) func(Lessons) bool { return func(Lessons) bool { return yes } }
	ofWaypoint := func(name, expected string, look func(*mesh.Dump) (bool, string)) configurationCheck {
		return configurationCheck{name: name, gateway: names.Waypoint, expected: expected, look: look}
	}
	ofGateway := func(name, expected string, look func(*mesh.Dump) (bool, string)) configurationCheck {
		return configurationCheck{name: name, gateway: names.Gateway, expected: expected, look: look}
	}
	return []configurationClaim{
		{
			id: "config-route", title: "the gateway routes " + names.Host + " to appb",
			learn: "istiod turns the HTTPRoute into a virtual host of the gateway's.", on: on(true),
			checks: []configurationCheck{ofGateway("route", names.Host+" leads to "+callee.String(), func(d *mesh.Dump) (bool, string) { return mesh.RouteHeld(d, names.Host, callee) })},
		},
		{
			id: "config-waypoint", title: "appb's requests go to the waypoint, the gateway's included",
			learn: "The label istio.io/ingress-use-waypoint turns the gateway's endpoints from pods into the waypoint.", on: on(lessons.Waypoint),
			checks: []configurationCheck{
				ofWaypoint("waypoint has appb", "the waypoint handles "+callee.String(), func(d *mesh.Dump) (bool, string) { return mesh.ServiceHeld(d, callee) }),
				ofGateway("gateway's endpoints", "the gateway's endpoints for appb are the waypoint's", func(d *mesh.Dump) (bool, string) {
					if len(waypoints) == 0 {
						return false, "the waypoint has no address"
					}
					return mesh.GatewayHeld(d, callee, waypoints)
				}),
			},
		},
		{
			id: "config-waypoint-off", title: "with the lesson off, the gateway sends appb's requests to its pod",
			learn: "A control: the waypoint's effect is gone with it.", on: on(!lessons.Waypoint),
			checks: []configurationCheck{ofGateway("gateway's endpoints", "the gateway's endpoints for appb are its pods", func(d *mesh.Dump) (bool, string) { return mesh.GatewayGone(d, callee) })},
		},
		{
			id: "config-appa-untouched", title: "nothing of it is at appa",
			learn: "Only the Service that bears the label is behind the waypoint, not its namespace.", on: on(lessons.Waypoint),
			checks: []configurationCheck{
				ofWaypoint("waypoint lacks appa", "the waypoint has nothing for "+caller.String(), func(d *mesh.Dump) (bool, string) { return mesh.ServiceGone(d, caller) }),
				ofGateway("gateway's endpoints", "the gateway's endpoints for appa are its pods", func(d *mesh.Dump) (bool, string) { return mesh.GatewayGone(d, caller) }),
			},
		},
		{
			id: "config-fault", title: fmt.Sprintf("the waypoint delays %s", fault),
			learn: "The VirtualService is in the waypoint's route, and in no other proxy's.", on: on(lessons.Fault != nil && lessons.Waypoint),
			checks: []configurationCheck{
				ofWaypoint("fault", "delay of "+fault.String(), func(d *mesh.Dump) (bool, string) { return mesh.FaultHeld(d, callee, fault) }),
				ofWaypoint("other paths", "no delay of "+fault.OtherPath(), func(d *mesh.Dump) (bool, string) { return mesh.FaultGone(d, callee, fault.OtherPath()) }),
				ofGateway("gateway", "the gateway delays nothing itself", mesh.NoFault),
			},
		},
		{
			id: "config-fault-off", title: "with the fault off, the waypoint delays nothing",
			learn: "A control: the fault's effect is gone with it.", on: on(lessons.Fault == nil && lessons.Waypoint),
			checks: []configurationCheck{ofWaypoint("fault", "no delay", mesh.NoFault)},
		},
		{
			id: "config-authz", title: "the waypoint lets in exactly whom the policy names, for GET",
			learn: "targetRefs attach the policy to the Service, so the waypoint gets it, methods and all.", on: on(lessons.Authz != nil && lessons.Waypoint),
			checks: []configurationCheck{
				ofWaypoint("policy", fmt.Sprintf("the policy lets in %v for %v and nobody else", policy.Principals, policy.Methods), func(d *mesh.Dump) (bool, string) { return mesh.AuthzHeld(d, callee, policy) }),
				ofWaypoint("nobody else", "no other policy lets anybody in", func(d *mesh.Dump) (bool, string) { return mesh.AuthzAlone(d, callee, policy.Namespace, policy.Name) }),
				ofWaypoint("order", "RBAC stands before the fault filter", func(d *mesh.Dump) (bool, string) { return mesh.AuthzBeforeFault(d, callee) }),
			},
		},
		{
			id: "config-authz-off", title: "with the policy off, the waypoint lets everybody in",
			learn: "A control: the policy's effect is gone with it.", on: on(lessons.Authz == nil && lessons.Waypoint),
			checks: []configurationCheck{ofWaypoint("policy", "no RBAC rules of "+names.GetOnly, func(d *mesh.Dump) (bool, string) { return mesh.AuthzGone(d, callee, policy.Namespace, policy.Name) })},
		},
	}
}
