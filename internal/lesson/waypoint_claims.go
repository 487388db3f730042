package lesson

import (
	"net/http"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
)

// waypointClaims are those of lesson waypoint.
func waypointClaims() []probe.Claim {
	handled := probe.ConfigurationCheck{
		Name: "waypoint's listener", Of: probe.WaypointProxy,
		Expect: func(s probe.Scene) string { return "the waypoint handles " + s.Target.Service.String() },
		Met: func(s probe.Scene, found probe.Configured) (bool, string) {
			return mesh.HandlesService(found.Dump, s.Target.Service)
		},
	}
	straight := func(service func(probe.Scene) mesh.Service) probe.ConfigurationCheck {
		return probe.ConfigurationCheck{
			Name: "gateway's endpoints", Of: probe.GatewayProxy,
			Expect: func(s probe.Scene) string {
				return "the gateway's endpoints for " + service(s).Name + " are its pods"
			},
			Met: func(s probe.Scene, found probe.Configured) (bool, string) {
				return mesh.SendsToPods(found.Dump, service(s))
			},
		}
	}
	appa := func(s probe.Scene) mesh.Service {
		return mesh.Service{Namespace: s.Target.Service.Namespace, Name: names.AppA, Port: names.AppPort}
	}
	appb := func(s probe.Scene) mesh.Service { return s.Target.Service }
	return []probe.Claim{
		{
			ID: "waypoint-appa", Lesson: "waypoint",
			Title: "appa's requests go through the waypoint, which identifies appa",
			Learn: "ztunnel sends what is addressed to appb's Service to the waypoint and proves the " +
				"caller's identity with mutual TLS.",
			When: probe.All(probe.WaypointOn, probe.Admitted(probe.Appa)),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath,
				Count: probe.Several, Expect: probe.Expect{Status: http.StatusOK, Route: probe.Through},
			},
			Configuration: []probe.ConfigurationCheck{handled},
		},
		{
			ID: "waypoint-gateway", Lesson: "waypoint",
			Title: "the gateway's requests go through the waypoint, which identifies the gateway",
			Learn: "Only because the Service has the label istio.io/ingress-use-waypoint; " +
				"without it the gateway goes straight to the pod.",
			When: probe.All(probe.WaypointOn, probe.Admitted(probe.Gateway)),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several,
				Expect: probe.Expect{Status: http.StatusOK, Route: probe.Through},
			},
			Configuration: []probe.ConfigurationCheck{handled, {
				Name: "gateway's endpoints", Of: probe.GatewayProxy,
				Expect: func(probe.Scene) string { return "the gateway's endpoints for appb are the waypoint" },
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					return mesh.SendsToWaypoint(found.Dump, s.Target.Service, s.WaypointAddresses)
				},
			}},
		},
		{
			ID: "waypoint-appb-only", Lesson: "waypoint", Title: "appa is not behind the waypoint",
			Learn: "Only the Service that has the label is behind the waypoint, not its namespace.",
			When:  probe.WaypointOn,
			Configuration: []probe.ConfigurationCheck{
				{
					Name: "waypoint lacks appa", Of: probe.WaypointProxy,
					Expect: func(s probe.Scene) string { return "the waypoint has nothing for " + appa(s).String() },
					Met: func(s probe.Scene, found probe.Configured) (bool, string) {
						return mesh.HandlesNothingFor(found.Dump, appa(s))
					},
				},
				straight(appa),
			},
		},
		{
			ID: "waypoint-off", Lesson: "waypoint", Title: "with the lesson off, appa's requests go straight to appb",
			Learn: "A control: the effect of the waypoint is gone with it.",
			When:  probe.All(probe.Not(probe.WaypointOn), probe.Admitted(probe.Appa)),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Several,
				Expect: probe.Expect{Status: http.StatusOK, Route: probe.Around},
			},
		},
		{
			ID: "waypoint-off-gateway", Lesson: "waypoint",
			Title: "with the lesson off, the gateway's requests go straight to appb",
			Learn: "A control: the effect of the waypoint is gone with it.",
			When:  probe.All(probe.Not(probe.WaypointOn), probe.Admitted(probe.Gateway)),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath,
				Count: probe.Several, Expect: probe.Expect{Status: http.StatusOK, Route: probe.Around},
			},
			Configuration: []probe.ConfigurationCheck{straight(appb)},
		},
	}
}
