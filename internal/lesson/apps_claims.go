package lesson

import (
	"net/http"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
)

// appsClaims are those of lesson apps.
func appsClaims() []probe.Claim {
	return []probe.Claim{
		{
			ID: "reach-appa", Lesson: "apps", Title: "appa reaches appb",
			Learn: "Two applications in one mesh talk by name; nothing in them knows of the mesh.",
			When:  probe.Admitted(probe.Appa),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Few,
				Expect: probe.Expect{Status: http.StatusOK},
			},
			Causes: policyCauses(),
		},
		{
			ID: "reach-gateway", Lesson: "apps", Title: "the outside reaches appb through the gateway",
			Learn: "The HTTPRoute sends the host name " + names.Host + " to appb.",
			When:  probe.Admitted(probe.Gateway),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Few,
				Expect: probe.Expect{Status: http.StatusOK},
			},
			Configuration: []probe.ConfigurationCheck{{
				Name: "route", Of: probe.GatewayProxy,
				Expect: func(s probe.Scene) string { return names.Host + " leads to " + s.Target.Service.String() },
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					return mesh.RoutesTo(found.Dump, names.Host, s.Target.Service)
				},
			}},
			Causes: policyCauses(),
		},
		{
			ID: "gateway-other-host", Lesson: "apps", Title: "the gateway has no route for another host",
			Learn: "A control: the gateway itself answers what has no route, so a 200 above is really appb's.",
			When:  probe.Always,
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Host: otherHost,
				Count: probe.Few, Expect: probe.Expect{Status: http.StatusNotFound},
			},
			Configuration: []probe.ConfigurationCheck{{
				Name: "no other route", Of: probe.GatewayProxy,
				Expect: func(s probe.Scene) string {
					return otherHost + " does not lead to " + s.Target.Service.String()
				},
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					if led, _ := mesh.RoutesTo(found.Dump, otherHost, s.Target.Service); led {
						return false, "the gateway has a route for " + otherHost
					}
					return true, ""
				},
			}},
		},
	}
}

// otherHost is a host name of the Gateway's listener that no HTTPRoute names.
const otherHost = "appa.opssec.in"
